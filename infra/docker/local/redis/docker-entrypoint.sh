#!/bin/sh
# As the official images: options alone are the server's, and it accepts connections from other containers.
case ${1:-} in -* | *.conf) set -- valkey-server "$@" ;; esac
case $1 in
valkey-server | redis-server) exec "$@" --protected-mode no ;;
esac
exec "$@"
