//! Generates the gRPC code, the table of who may call what, and what makes messages
//! printable. protox compiles the .proto files, so that no protoc has to be installed.

use protox::prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind, Value};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tonic_prost_build::Builder;

/// What members say among each other; people are shown nothing of it.
const AMONG_MEMBERS: [&str; 7] =
    ["access", "cluster", "edges", "lease", "probes", "raft", "tables"];
/// Where the files are, below the root.
const FOLDER: &str = "vip/v1";
const PACKAGE: &str = "vip.v1";

type Failed = Box<dyn std::error::Error>;

/// Source of a table: the path of each of our RPCs, and what its `access` says.
fn access(pool: &DescriptorPool) -> Result<String, Failed> {
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

fn is_printed(file: &str) -> bool {
    let name = file.strip_prefix(FOLDER).and_then(|name| name.strip_suffix(".proto"));
    name.is_some_and(|name| !AMONG_MEMBERS.contains(&name.trim_start_matches('/')))
}

/// Every .proto file there is, in an order that does not change.
fn files(root: &Path) -> Result<Vec<PathBuf>, Failed> {
    let all = std::fs::read_dir(root.join(FOLDER))?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> =
        all.iter().map(|file| Path::new(FOLDER).join(file.file_name())).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "proto"));
    names.sort();
    Ok(names)
}

/// The words of our enums: their names in the .proto files, without the enum's own.
fn words(pool: &DescriptorPool) -> Result<String, Failed> {
    let mut source = String::new();
    for one in pool.all_enums().filter(|one| is_printed(one.parent_file().name())) {
        let first = one.values().next().ok_or("an enum without values")?;
        let prefix = first.name().strip_suffix("UNSPECIFIED");
        let prefix = prefix.ok_or_else(|| format!("{} is not unspecified", first.full_name()))?;
        writeln!(source, "impl crate::Word for v1::{} {{", one.name())?;
        writeln!(source, "    fn word(number: i32) -> Option<&'static str> {{")?;
        writeln!(source, "        match number {{")?;
        for value in one.values().skip(1) {
            let word = value
                .name()
                .strip_prefix(prefix)
                .ok_or_else(|| format!("{} does not begin with {prefix}", value.full_name()))?;
            let word = word.to_lowercase().replace('_', "-");
            writeln!(source, "            {} => Some({word:?}),", value.number())?;
        }
        writeln!(source, "            _ => None,\n        }}\n    }}\n}}")?;
    }
    Ok(source)
}

/// An enum's field is a number to prost; a person reads its word.
fn said_in_words(field: &FieldDescriptor) -> Option<String> {
    let Kind::Enum(one) = field.kind() else { return None };
    let how = match (field.cardinality(), field.supports_presence()) {
        (Cardinality::Repeated, _) => return None,
        (_, true) => "word_or_nothing",
        (_, false) => "word",
    };
    Some(format!(
        "#[serde(serialize_with = \"crate::words::{how}::<crate::v1::{}, _>\")]",
        one.name()
    ))
}

/// What people are answered is printed as it is. What they ask is not: there are
/// secrets in it.
fn printed(pool: &DescriptorPool, mut builder: Builder) -> Builder {
    let ours = pool.all_messages().filter(|message| is_printed(message.parent_file().name()));
    for message in ours.filter(|message| !message.name().ends_with("Request")) {
        let path = format!(".{}", message.full_name());
        builder = builder.message_attribute(&path, "#[derive(serde::Serialize)]");
        for field in message.fields() {
            if let Some(attribute) = said_in_words(&field) {
                builder = builder.field_attribute(format!("{path}.{}", field.name()), attribute);
            }
        }
    }
    builder
}

fn main() -> Result<(), Failed> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).open_files(files(root.as_ref())?)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Options of our own are kept in these bytes alone.
    let bytes = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(&bytes[..])?;
    std::fs::write(out.join("access.rs"), access(&pool)?)?;
    std::fs::write(out.join("words.rs"), words(&pool)?)?;
    std::fs::write(out.join("descriptor.bin"), bytes)?;
    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| file.package() == PACKAGE);
    printed(&pool, tonic_prost_build::configure()).compile_fds(set)?;
    Ok(())
}
