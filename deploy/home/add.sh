#!/bin/sh
# Adds the VIP, the site and the names; run on one node, once or again.
# VIP: the address, with the length of the nodes' prefix.
set -eu
vipctl=${VIPCTL:-vipctl}
$vipctl vip add home --address "${VIP:?an address with its prefix, such as 192.0.2.10/24}" --placement sticky
$vipctl vs add site --vip home --port 80 --real-nodes 80 --check http:/ready --check-expect 204
$vipctl vs add names --vip home --port 53 --protocol udp --real-nodes 53 --check dns:site.home.arpa/A
