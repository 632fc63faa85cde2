# Asking the manager, by whatever this host has for it. Each ask_by_* prints the answer's body, and returns 1 where
# there is no answer, 2 where the certificate is not trusted, 3 where the answer is no, 4 where the program itself does
# not work: then the next one is asked. With $verified = no no
# certificate is checked: for the one question whose answer nothing relies on.

ask_once() { # PATH
  for client in curl wget python hand; do
    verdict=0
    "ask_by_$client" "$1" || verdict=$?
    [ $verdict = 4 ] || return $verdict
  done
  return 127
}

ask_by_curl() { # PATH
  command -v curl >/dev/null 2>&1 || return 4
  set -- "$api_url$1"
  if [ "$verified" = no ]; then
    set -- --insecure "$1"
  elif [ -n "$ca_certificate" ]; then
    set -- --cacert "$scratch/ca.pem" "$1"
  fi
  curl --silent --show-error --fail --connect-timeout 10 --max-time 20 "$@" && return 0
  case $? in
    35 | 51 | 60) return 2 ;;
    22) return 3 ;;
    5 | 6 | 7 | 16 | 18 | 28 | 52 | 55 | 56 | 92 | 97) return 1 ;; # names, routes, and what breaks off on the way
    *) return 4 ;;
  esac
}

ask_by_wget() { # PATH
  wget --version 2>/dev/null | grep -q "GNU Wget" || return 4
  set -- "$api_url$1"
  if [ "$verified" = no ]; then
    set -- --no-check-certificate "$1"
  elif [ -n "$ca_certificate" ]; then
    set -- --ca-certificate="$scratch/ca.pem" "$1"
  fi
  wget --no-verbose --output-document=- --tries=1 --timeout=20 "$@" && return 0
  case $? in
    5) return 2 ;;
    8) return 3 ;;
    4 | 7) return 1 ;;
    *) return 4 ;;
  esac
}

ask_by_python() { # PATH
  find_interpreter || return 4
  "$interpreter" -I -c "$(ask_program)" "$api_url$1" "${ca_certificate:+$scratch/ca.pem}" "$verified" && return 0
  case $? in
    21) return 1 ;;
    22) return 2 ;;
    23) return 3 ;;
    *) return 4 ;; # it has no ssl, or does not even start
  esac
}

find_interpreter() { # sets $interpreter; to ask, a Python without venv is enough
  for interpreter in $(pythons); do
    "$interpreter" -I -c 'import ssl, urllib.request' >/dev/null 2>&1 && return
  done
  return 1
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
    sys.exit(23)
except urllib.error.URLError as error:
    sys.stderr.write("%s\n" % error.reason)
    sys.exit(22 if isinstance(error.reason, ssl.SSLError) else 21)
except OSError as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(21)
PYTHON
}

ask_by_hand() { # PATH: what a bare Debian has; proxies are not asked
  can_converse || return 4
  printf 'GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$manager_path$1" "$manager_host" "$manager_port" >"$scratch/question"
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
    http:*) bash -c : ;;
    *) openssl version ;;
  esac >/dev/null 2>&1
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

