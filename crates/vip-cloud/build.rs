//! Generates the gRPC code for GoBGP. protox compiles the .proto file, so that no protoc has to
//! be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (root, file) = ("../../proto", "gobgp/api.proto");
    println!("cargo:rerun-if-changed={root}/{file}");
    let set = protox::compile([file], [root])?;
    // An attribute goes over the wire with its name.
    let mut config = prost_build::Config::new();
    config.enable_type_names().type_name_domain(["."], "type.googleapis.com");
    let builder = tonic_prost_build::configure().build_server(false);
    builder.compile_fds_with_config(set, config)?;
    Ok(())
}
