//! gRPC by hand, for callers that no client library would be (gRPC over HTTP/2,
//! "Requests").

use http::request::Builder;
use http::{Request, Version};

/// A call of `method`, as in `vip.v1.Cluster/Join`; its headers may be added to.
pub(crate) fn call(method: &str) -> Builder {
    Request::builder()
        .version(Version::HTTP_2)
        .method("POST")
        .uri(format!("http://vipd.invalid/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}
