//! What has to be set up on real servers, in words and commands.

use vip_proto::v1;

/// `None`: nothing.
pub(crate) fn setup(server: &v1::Server) -> Option<String> {
    let text = match v1::Forward::try_from(server.forward) {
        Ok(v1::Forward::Dr) => dr(server)?,
        Ok(v1::Forward::Nat) => nat(server),
        _ => return None,
    };
    Some(text)
}

fn list(reals: &[&v1::Real]) -> String {
    reals.iter().map(|real| real.address.as_str()).collect::<Vec<_>>().join(", ")
}

/// A real server answers from the VIP's address, and must not say on the network that it
/// has it. Members do so by themselves.
fn dr(server: &v1::Server) -> Option<String> {
    let reals: Vec<_> = server.reals.iter().filter(|real| real.node.is_none()).collect();
    if reals.is_empty() {
        return None;
    }
    let (v4, v6): (Vec<_>, Vec<_>) =
        server.addresses.iter().partition(|address| !address.contains(':'));
    let mut text = format!(
        "On each real server ({}), which answers clients from the VIP's address and past the \
         holder:",
        list(&reals)
    );
    if !v4.is_empty() {
        text += "\n  sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
    }
    for ip in v4 {
        text += &format!("\n  ip address add {ip}/32 dev lo");
    }
    for ip in v6 {
        text += &format!("\n  ip -6 address add {ip}/128 dev lo nodad preferred_lft 0");
    }
    Some(text)
}

/// Replies have to come back by the holder, whoever that is.
fn nat(server: &v1::Server) -> String {
    let reals: Vec<_> = server.reals.iter().collect();
    format!(
        "Replies of the real servers ({}) have to come back by the holder of VIP {}: their route \
         to the clients is an address that moves with it, such as another VIP in their subnet with \
         the same placement:\n  ip route replace default via THAT-ADDRESS\nClients in the real servers' \
         own subnet are answered past the holder, and lose their connections: use --forward dr \
         for them.",
        list(&reals),
        server.vip
    )
}
