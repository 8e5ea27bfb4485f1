# Sourced by the script beside it: where the configuration is, and what the operator's own files set. As Apache's: `--config
# DIR` comes before everything else, then ZOOCFGDIR, then ../conf; zookeeper-env.sh and java.env are sourced from there, and
# `environment`, which is what Debian's package calls it.
if [ $# -gt 1 ] && [ "$1" = --config ]; then
  ZOOCFGDIR=$2
  shift 2
fi
if [ -z "${ZOOCFGDIR:-}" ]; then
  for ZOOCFGDIR in "$ZOOBINDIR/../conf" "$ZOOBINDIR/../etc/zookeeper" /etc/rookeeper; do
    [ -d "$ZOOCFGDIR" ] && break
  done
fi

# The server may write /etc/rookeeper: root runs only what root alone could have put there. What is looked at is the file that
# was opened, so that none can be put in its place; a link, which is another file than the one it leads to, could lead anywhere.
set -a
for settings in environment zookeeper-env.sh java.env; do
  settings=$ZOOCFGDIR/$settings
  [ -f "$settings" ] && exec 3<"$settings" || continue
  if [ "$(id -u)" != 0 ] || { [ -z "$(find -L /dev/fd/3 -prune \( ! -user 0 -o -perm /022 \))" ] \
    && [ "$(stat -c %d:%i "$settings")" = "$(stat -L -c %d:%i /dev/fd/3)" ]; }; then
    # Else the shell ends with a line that names neither the file nor what is wrong with it.
    if ! problem=$(sh -n /dev/fd/3 2>&1); then
      echo "$settings${problem#*/dev/fd/3}" >&2
      exit 1
    fi
    . /dev/fd/3
  else
    echo "$settings is left out: root reads it only if it is a file, no link, of root's that nobody else may write" >&2
  fi
  exec 3<&-
done
if [ -z "${ZOO_LOG_DIR:-}" ]; then
  ZOO_LOG_DIR=$ZOOBINDIR/../logs
  # Of an instance: where its service has it.
  case $ZOOCFGDIR in /etc/rookeeper | /etc/rookeeper/*) ZOO_LOG_DIR=/var/log/rookeeper${ZOOCFGDIR#/etc/rookeeper} ;; esac
fi
set +a
export ZOOCFGDIR
