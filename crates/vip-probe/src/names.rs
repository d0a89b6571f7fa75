//! What DNS names of real servers resolve to, as this host resolves names: by
//! `/etc/resolv.conf` and `/etc/hosts`, read anew each time.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use vip_core::HostName;

/// All servers of the host have so long, each of them several times.
const LIMIT: Duration = Duration::from_secs(10);

/// The addresses of a name, and for how long that is so, by its TTL.
///
/// # Errors
/// Why nothing is known: the rest of a sentence.
pub async fn resolve(name: &HostName) -> Result<(Vec<IpAddr>, Duration), String> {
    let failed = |error: &dyn std::fmt::Display| format!("its resolver says: {error}");
    let mut builder = TokioResolver::builder_tokio().map_err(|e| failed(&e))?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // What is asked again is wanted anew.
    options.cache_size = 0;
    let resolver = builder.build().map_err(|e| failed(&e))?;
    let looked_up = timeout(LIMIT, resolver.lookup_ip(format!("{name}.")));
    let found = looked_up.await.map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?;
    let found = found.map_err(|e| failed(&e))?;
    let addresses: Vec<_> = found.iter().collect();
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
}
