#!/bin/sh
# Adds the VIP and the API; run on one controller, once or again.
# VIP: the address, with the length of the controllers' prefix.
set -eu
vipctl=${VIPCTL:-vipctl}
$vipctl vip add control-plane --address "${VIP:?an address with its prefix, such as 192.0.2.10/24}"
$vipctl vs add api --vip control-plane --port 6443 --real-nodes 6443 --scheduler sh \
    --check https:/readyz --check-expect 200 --check-tls skip
