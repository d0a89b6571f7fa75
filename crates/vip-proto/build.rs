//! Generates the gRPC code. protox compiles the .proto files, so that no
//! protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let files = ["vip/v1/raft.proto", "vip/v1/cluster.proto", "vip/v1/admin.proto"];
    let set = protox::compile(files, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), prost::Message::encode_to_vec(&set))?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[allow(missing_docs, reason = \"documented in the .proto files\")]")
        .compile_fds(set)?;
    Ok(())
}
