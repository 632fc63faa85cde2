# Asking the manager, by whatever this host has for it. Each ask_by_* prints the answer's body, and returns 1 where
# there is no answer, 2 where the certificate is not trusted, 3 where the answer is no. With $verified = no no
# certificate is checked: for the one question whose answer nothing relies on.

ask_once() { # PATH
  if command -v curl >/dev/null 2>&1; then
    ask_by_curl "$api_url$1"
  elif wget --version 2>/dev/null | grep -q "GNU Wget"; then
    ask_by_wget "$api_url$1"
  elif command -v python3 >/dev/null 2>&1; then
    ask_by_python "$api_url$1"
  elif can_converse; then
    ask_by_hand "$manager_path$1"
  else
    return 127
  fi
}

ask_by_curl() { # URL
  if [ "$verified" = no ]; then
    set -- --insecure "$1"
  elif [ -n "$ca_certificate" ]; then
    set -- --cacert "$scratch/ca.pem" "$1"
  fi
  curl --silent --show-error --fail --connect-timeout 10 --max-time 20 "$@" && return 0
  case $? in
    35 | 51 | 60) return 2 ;;
    22) return 3 ;;
    *) return 1 ;;
  esac
}

ask_by_wget() { # URL
  if [ "$verified" = no ]; then
    set -- --no-check-certificate "$1"
  elif [ -n "$ca_certificate" ]; then
    set -- --ca-certificate="$scratch/ca.pem" "$1"
  fi
  wget --no-verbose --output-document=- --tries=1 --timeout=20 "$@" && return 0
  case $? in
    5) return 2 ;;
    8) return 3 ;;
    *) return 1 ;;
  esac
}

ask_by_python() { # URL
  python3 -I -c "$(ask_program)" "$1" "${ca_certificate:+$scratch/ca.pem}" "$verified"
}

ask_program() {
  cat <<'PYTHON'
import ssl, sys, urllib.error, urllib.request
url, ca_file, verified = sys.argv[1:]
context = ssl.create_default_context(cafile=ca_file or None)
if verified == "no":
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    sys.stdout.write(urllib.request.urlopen(url, timeout=20, context=context).read(65536).decode())
except urllib.error.HTTPError as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(3)
except urllib.error.URLError as error:
    sys.stderr.write("%s\n" % error.reason)
    sys.exit(2 if isinstance(error.reason, ssl.SSLError) else 1)
except OSError as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(1)
PYTHON
}

ask_by_hand() { # PATH: what a bare Debian has; proxies are not asked
  printf 'GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$1" "$manager_host" "$manager_port" >"$scratch/question"
  converse <"$scratch/question" >"$scratch/answer" 2>"$scratch/connection" || true
  if grep -q '^HTTP/1.[01] 200' "$scratch/answer"; then
    sed '1,/^.\{0,1\}$/d' "$scratch/answer"
    return 0
  fi
  grep -i 'verify error\|certificate verify failed' "$scratch/connection" >&2 && return 2
  sed -n '/^HTTP/p' "$scratch/answer" | grep . >&2 && return 3
  sed 1q "$scratch/connection" >&2
  return 1
}

can_converse() {
  case $api_url in
    http:*) command -v bash >/dev/null 2>&1 ;;
    *) command -v openssl >/dev/null 2>&1 ;;
  esac
}

converse() { # stdin to the manager, its answer to stdout
  case $api_url in
    http:*)
      # shellcheck disable=SC2016 # it is bash that expands these
      timeout 20 bash -c 'exec 3<>"/dev/tcp/$0/$1" && cat >&3 && cat <&3' "$manager_host" "$manager_port"
      return
      ;;
  esac
  set -- -quiet -connect "$manager_host:$manager_port"
  case $manager_host in
    *:*) set -- -quiet -connect "[$manager_host]:$manager_port" -verify_ip "$manager_host" ;;
    *[!0-9.]*) set -- "$@" -servername "$manager_host" -verify_hostname "$manager_host" ;;
    *) set -- "$@" -verify_ip "$manager_host" ;;
  esac
  [ "$verified" = no ] || set -- "$@" -verify_return_error
  [ -z "$ca_certificate" ] || set -- "$@" -CAfile "$scratch/ca.pem"
  timeout 20 openssl s_client "$@"
}

ask() { # PATH: tries three times; what went wrong is in $scratch/trouble; 127 where this host has nothing to ask with
  for attempt in 1 2 3; do
    ask_once "$1" 2>"$scratch/trouble" && return 0
    outcome=$?
    # a manager that cannot answer now (a status of 500 and more) is no stranger
    [ $outcome != 3 ] || ! grep -q ' 5[0-9][0-9]' "$scratch/trouble" || outcome=1
    [ $outcome = 1 ] && [ $attempt != 3 ] || return $outcome
    sleep 2
  done
}

