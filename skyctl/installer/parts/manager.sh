# Whether the manager is there, is the one that made this script, and still wants this host; and what its clock shows.

check_manager() { # sets $asked: no where this host cannot ask before Python is there
  asked=yes verified=yes outcome=0
  printf '%s\n' "$ca_certificate" >"$scratch/ca.pem"
  answer=$(ask "/install/check/$worker_id/$invitation") || outcome=$?
  trouble=$(sed -n '$p' "$scratch/trouble" 2>/dev/null | tr -d '\r')
  case $outcome in
    0) ;;
    2)
      clock_unverified
      fail 22 "$api_url is not the manager that made this script: its certificate is not trusted ($trouble)" \
        "have the script generated again: skyctl workers install-script; if you did not change the manager's CA, somebody else answers there"
      ;;
    3) fail 23 "what answers at $api_url is no skyctl that knows this script ($trouble)" "check SKYCTL_API_URL on the manager, and its version" ;;
    127)
      asked=no
      say "later: manager: there is no curl, wget, Python or openssl here that works, so it is asked once Python is there"
      return
      ;;
    *) fail 21 "the manager does not answer at $api_url ($trouble)" "see on the manager that skyctl serve runs, and that this host may reach it" ;;
  esac
  passed manager "$api_url answers"
  check_clock "$answer"
  check_invitation "$answer"
}

check_clock() { # ANSWER
  theirs=$(printf '%s\n' "$1" | sed -n 's/^time \([0-9][0-9]*\)$/\1/p')
  [ -n "$theirs" ] || fail 23 "what answers at $api_url is no skyctl that knows this script" "check SKYCTL_API_URL on the manager, and its version"
  ahead=$(($(date +%s) - theirs))
  [ "${ahead#-}" -le 600 ] || fail 20 "this host's clock shows $(date -u), $ahead seconds ahead of the manager's: certificates would not be good" \
    "set it, for example: timedatectl set-ntp true; or: date -u -s @$theirs"
  passed clock "$ahead s ahead of the manager's"
}

clock_unverified() { # a clock that is far off makes a good certificate look bad: then that is what to say
  verified=no
  answer=$(ask "/install/check/$worker_id/$invitation") || return 0
  case $answer in
    "time "*) check_clock "$answer" ;;
  esac
}

check_invitation() { # ANSWER
  state=$(printf '%s\n' "$1" | sed -n 's/^invitation \([a-z]*\)$/\1/p')
  again="make a new invitation: skyctl workers install-script"
  once_more="; where this host was that worker: skyctl workers install-script --worker $worker_id"
  if [ "$state" = good ]; then
    passed invitation "worker $worker_id"
  elif is_this_worker && [ "$state" != removed ]; then
    passed invitation "this host is worker $worker_id already"
  elif [ "$state" = expired ]; then
    fail 24 "this invitation has expired" "$again$once_more"
  elif [ "$state" = used ]; then
    fail 25 "this invitation has been used by another host" "$again; each is for one host$once_more"
  else
    fail 26 "the manager does not know this invitation: the worker was removed, or its token replaced" "$again"
  fi
}

