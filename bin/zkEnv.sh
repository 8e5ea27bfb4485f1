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

set -a
for settings in environment zookeeper-env.sh java.env; do
  [ -f "$ZOOCFGDIR/$settings" ] && . "$ZOOCFGDIR/$settings"
done
if [ -z "${ZOO_LOG_DIR:-}" ]; then
  ZOO_LOG_DIR=$ZOOBINDIR/../logs
  [ "$ZOOCFGDIR" = /etc/rookeeper ] && ZOO_LOG_DIR=/var/log/rookeeper
fi
set +a
export ZOOCFGDIR
