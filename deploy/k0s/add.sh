#!/bin/sh
# Adds the VIP, the API and what belongs to it; run on one controller, once or again.
# VIP: the address, with the length of the controllers' prefix.
# CHECK=tcp: ask only whether the API's port is open.
set -eu
vipctl=${VIPCTL:-vipctl}
ready="--check https:/readyz --check-expect 200 --check-tls skip"
[ "${CHECK:-}" = tcp ] && ready="--check tcp"
$vipctl vip add control-plane --address "${VIP:?an address with its prefix, such as 192.0.2.10/24}"
$vipctl vs add api --vip control-plane --port 6443 --real-nodes 6443 --scheduler sh $ready
$vipctl vs add konnectivity --vip control-plane --port 8132 --real-nodes 8132 --check tcp
$vipctl vs add join --vip control-plane --port 9443 --real-nodes 9443 --check tcp
