// SPDX-License-Identifier: Apache-2.0
// Somebody else's tcx program: lets everything pass and ends the chain
// (TC_ACT_OK), so whatever stands behind it never sees a packet.
#include <linux/bpf.h>

__attribute__((section("classifier"), used)) int foreign(struct __sk_buff *skb)
{
	return 0;
}

char LICENSE[] __attribute__((section("license"), used)) = "Apache-2.0";
