#!/bin/sh
# Will write an appliance image to a card. There is no image to write yet: say so, touch nothing.
echo 'flash.sh: there is no appliance image yet (see image/README.md); nothing was written.' >&2
exit 1
