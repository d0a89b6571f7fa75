//! Generates the gRPC code, and the table of who may call what. protox compiles the
//! .proto files, so that no protoc has to be installed.

use protox::prost_reflect::{DescriptorPool, Value};
use std::fmt::Write;
use std::path::PathBuf;

const FILES: [&str; 3] = ["vip/v1/raft.proto", "vip/v1/cluster.proto", "vip/v1/admin.proto"];
const PACKAGE: &str = "vip.v1";

/// Source of a table: the path of each of our RPCs, and what its `access` says.
fn access(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let option = format!("{PACKAGE}.access");
    let option = pool.get_extension_by_name(&option).ok_or("no option for access")?;
    let mut table = String::from("&[\n");
    let ours = pool.services().filter(|service| service.package_name() == PACKAGE);
    for method in ours.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let number = match method.options().get_extension(&option).as_ref() {
            Value::EnumNumber(0) | Value::Message(_) => None,
            Value::EnumNumber(number) => Some(*number),
            _ => None,
        };
        let number = number.ok_or_else(|| format!("{path} does not say who may call it"))?;
        writeln!(table, "    ({path:?}, {number}),")?;
    }
    table.push(']');
    Ok(table)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Options of our own are kept in these bytes alone.
    let bytes = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(&bytes[..])?;
    std::fs::write(out.join("access.rs"), access(&pool)?)?;
    std::fs::write(out.join("descriptor.bin"), bytes)?;
    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| file.package() == PACKAGE);
    tonic_prost_build::configure()
        .type_attribute(".", "#[allow(missing_docs, reason = \"documented in the .proto files\")]")
        .compile_fds(set)?;
    Ok(())
}
