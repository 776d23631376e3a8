#!/bin/sh
# Draws one picture with mosquitto's clients: request.sh NODE REQUEST FILE.
#
#   ./request.sh board '{"class": 7, "seed": 42}' seven.png
#
# MOSQUITTO may hold further options of mosquitto_rr, such as "-h broker.local".
set -eu
node=$1 request=$2 file=$3
# The request names a response topic of its own. The first answer there is the image, or an error.
# shellcheck disable=SC2086 # the options are words
mosquitto_rr ${MOSQUITTO:-} -V 5 -q 1 -W 300 -N -t "denoised/$node/request" -m "$request" \
  -e "answers/request.sh-$$" > "$file"
case $(head -c 1 "$file") in
  "{") echo "request.sh: $(cat "$file")" >&2; rm "$file"; exit 1 ;;
  "") echo "request.sh: $node has not answered" >&2; rm "$file"; exit 1 ;;
esac
