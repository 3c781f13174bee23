#!/bin/sh
# -I: no variable and no file of the user changes which code runs. -B: root leaves no compiled files
# behind that no package knows; the installation has made them.
exec /usr/lib/llmd/bin/python3 -I -B -m llmd "$@"
