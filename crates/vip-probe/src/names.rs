//! What DNS names of real servers resolve to, as this host resolves names: by the servers of
//! `/etc/resolv.conf`, and by `/etc/hosts`, read anew each time.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use vip_core::HostName;

/// All servers of the host have so long for each family.
const LIMIT: Duration = Duration::from_secs(5);

type Answer = Result<(Vec<IpAddr>, Duration), String>;

/// The addresses of a name, and for how long that is so, by its TTL: of the families that were
/// answered for.
///
/// # Errors
/// Why nothing is known: the rest of a sentence.
pub async fn resolve(name: &HostName) -> Answer {
    let (v4, v6) = tokio::join!(
        family(name, LookupIpStrategy::Ipv4Only),
        family(name, LookupIpStrategy::Ipv6Only)
    );
    match (v4, v6) {
        (Ok((mut all, ttl)), Ok((more, other))) => {
            all.extend(more);
            Ok((all, ttl.min(other)))
        }
        // One of the two may be asked for in vain for good.
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(why), Err(_)) => Err(why),
    }
}

async fn family(name: &HostName, strategy: LookupIpStrategy) -> Answer {
    let failed = |error: &dyn std::fmt::Display| format!("its resolver says: {error}");
    let mut builder = TokioResolver::builder_tokio().map_err(|e| failed(&e))?;
    let options = builder.options_mut();
    options.ip_strategy = strategy;
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
