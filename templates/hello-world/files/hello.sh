#!/bin/sh
# Says what is in greeting.txt, and to whom if a name is given.
set -eu

cat "$(dirname "$0")/greeting.txt"
if [ "$#" -gt 0 ]; then
  printf 'This one is for %s.\n' "$*"
fi
