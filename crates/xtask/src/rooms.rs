//! No circle between the rooms of a crate.
//!
//! A room is a file, or a folder with the file that is its face. Arrows are
//! imports and paths, followed through re-exports to the file that defines what
//! is named. What macros expand to, and methods, are not seen.

use crate::shell::root;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// `["lease", "runner"]` is `crate::lease::runner`.
type Module = Vec<String>;
/// From which to which room, and an example.
type Arrows = BTreeMap<(String, String), String>;

/// Re-exports of re-exports are followed so far.
const DEEPEST: u32 = 16;

/// What a room of vip-core may see beside the ground. A room that is not listed
/// is ground, and sees ground alone.
const FLOORS: &[(&str, &[&str])] = &[
    ("report", &[]),
    ("spec", &[]),
    ("health", &["spec"]),
    ("log", &["report", "spec", "health"]),
    ("placement", &["report", "spec", "log"]),
    ("forward", &["report", "spec", "log"]),
    ("guard", &["report"]),
    ("lease", &["report", "spec", "log", "placement", "guard"]),
    ("cloud", &["report", "spec", "log", "lease"]),
    ("goal", &["report", "spec", "log", "lease"]),
];

/// Whose files may be in circles among themselves: the state is made of its
/// subjects' records, and an entry of a subject changes the state.
const TIED: &[&str] = &["vip-core/log"];

pub(crate) fn check() -> Result<()> {
    let mut circles = String::new();
    for folder in ["crates", "cmd"] {
        for entry in fs::read_dir(root().join(folder))? {
            circles += &circles_of(&entry?.path())?;
        }
    }
    circles += &circles_of(&root().join("chaos-tests"))?;
    if !circles.is_empty() {
        bail!("{circles}");
    }
    check_floors(&root().join("crates/vip-core"))
}

/// All circles of a crate, in words.
fn circles_of(folder: &Path) -> Result<String> {
    let mut circles = String::new();
    let krate = Crate::read(folder)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for parent in krate.files.keys() {
        let place = [name.clone()].into_iter().chain(parent.clone()).collect::<Vec<_>>();
        let place = place.join("/");
        let arrows = krate.arrows_below(parent);
        if let Some(circle) = circle(&arrows).filter(|_| !TIED.contains(&place.as_str())) {
            let ties = circle.windows(2).map(|pair| {
                let (from, to) = (pair[0].clone(), pair[1].clone());
                let example = arrows.get(&(from.clone(), to.clone())).cloned();
                format!("\n  {from} -> {to}: {}", example.unwrap_or_default())
            });
            let ties: String = ties.collect();
            circles += &format!("a circle between rooms of {place}:{ties}\n");
        }
    }
    Ok(circles)
}

fn check_floors(folder: &Path) -> Result<()> {
    let arrows = Crate::read(folder)?.arrows_below(&Module::new());
    let sees = |room: &str| FLOORS.iter().find(|(name, _)| *name == room).map(|(_, sees)| *sees);
    for ((from, to), example) in arrows {
        let is_ground = sees(&to).is_none();
        if !is_ground && !sees(&from).unwrap_or_default().contains(&to.as_str()) {
            bail!("vip-core's {from} must not see {to}, and takes {example}");
        }
    }
    Ok(())
}

/// A circle, with its first room once more at its end.
fn circle(arrows: &Arrows) -> Option<Vec<String>> {
    fn reach(arrows: &Arrows, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let here = path.last().cloned().unwrap_or_default();
        let next = arrows.keys().filter(|(from, _)| *from == here).map(|(_, to)| to.clone());
        for to in next.collect::<Vec<_>>() {
            if let Some(start) = path.iter().position(|room| *room == to) {
                path.drain(..start);
                path.push(to);
                return true;
            }
            if !done.contains(&to) {
                path.push(to);
                if reach(arrows, path, done) {
                    return true;
                }
            }
        }
        done.extend(path.pop());
        false
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|(from, _)| {
        let mut path = vec![from.clone()];
        (!done.contains(from) && reach(arrows, &mut path, &mut done)).then_some(path)
    })
}

/// One file: what it says of names.
#[derive(Default)]
struct Names {
    /// Imports and re-exports: the name here, and the path.
    uses: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// All paths, imports too.
    paths: BTreeSet<Vec<String>>,
    children: Vec<String>,
}

struct Crate {
    files: BTreeMap<Module, Names>,
}

impl Crate {
    fn read(folder: &Path) -> Result<Self> {
        let source = folder.join("src");
        let face = ["lib.rs", "main.rs"].map(|file| source.join(file));
        let face = face.iter().find(|file| file.exists()).context("no lib.rs and no main.rs")?;
        let mut files = BTreeMap::new();
        read(face, &source, Module::new(), &mut files)?;
        Ok(Self { files })
    }

    /// Arrows between the rooms right below `parent`.
    fn arrows_below(&self, parent: &Module) -> Arrows {
        let room = |module: &Module| {
            let is_below = module.len() > parent.len() && module.starts_with(parent);
            is_below.then(|| module[parent.len()].clone())
        };
        let mut arrows = Arrows::new();
        for (module, names) in &self.files {
            let Some(from) = room(module) else { continue };
            for path in &names.paths {
                let Some(to) = self.resolve(module, path, DEEPEST).and_then(|to| room(&to)) else {
                    continue;
                };
                if from != to {
                    let example = format!("{} in {}", path.join("::"), module.join("/"));
                    arrows.entry((from.clone(), to)).or_insert(example);
                }
            }
        }
        arrows
    }

    /// The file that defines what `path` names, in `module`. `None`: none of this
    /// crate.
    fn resolve(&self, module: &Module, path: &[String], depth: u32) -> Option<Module> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(&Module::new(), rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => self.descend(&module[..module.len().checked_sub(1)?].to_vec(), rest, depth),
            name => {
                let names = self.files.get(module)?;
                if names.children.iter().any(|child| child == name) {
                    return self.descend(module, path, depth);
                }
                let full = names.uses.get(name).filter(|full| full.first() != Some(first))?;
                let full: Vec<String> = full.iter().chain(rest).cloned().collect();
                self.resolve(module, &full, depth)
            }
        }
    }

    fn descend(&self, module: &Module, path: &[String], depth: u32) -> Option<Module> {
        let names = self.files.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(module.clone()) };
        if first == "super" {
            return self.descend(&module[..module.len().checked_sub(1)?].to_vec(), rest, depth);
        }
        if names.children.contains(first) {
            let child = module.iter().chain([first]).cloned().collect();
            return self.descend(&child, rest, depth);
        }
        if let Some(full) = names.uses.get(first) {
            let full: Vec<String> = full.iter().chain(rest).cloned().collect();
            return self.resolve(module, &full, depth);
        }
        let by_glob = names.globs.iter().find_map(|glob| {
            let target = self.resolve(module, glob, depth)?;
            self.files.get(&target)?.uses.contains_key(first).then_some(())?;
            self.descend(&target, path, depth)
        });
        by_glob.or_else(|| Some(module.clone()))
    }
}

fn read(
    file: &Path,
    folder: &Path,
    module: Module,
    files: &mut BTreeMap<Module, Names>,
) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let tree = syn::parse_file(&text).with_context(|| file.display().to_string())?;
    let mut reader = Reader::default();
    reader.visit_file(&tree);
    for child in &reader.names.children {
        let flat = folder.join(format!("{child}.rs"));
        let nested: PathBuf = folder.join(child).join("mod.rs");
        let file = if flat.exists() { flat } else { nested };
        let module = module.iter().chain([child]).cloned().collect();
        read(&file, &folder.join(child), module, files)?;
    }
    files.insert(module, reader.names);
    Ok(())
}

#[derive(Default)]
struct Reader {
    names: Names,
}

impl Reader {
    fn tree(&mut self, tree: &syn::UseTree, mut path: Vec<String>) {
        match tree {
            syn::UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.tree(&inner.tree, path);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(tree, path.clone()));
            }
            syn::UseTree::Glob(_) => {
                self.names.globs.push(path.clone());
                self.names.paths.insert(path);
            }
            syn::UseTree::Name(name) => self.import(&name.ident, &name.ident, path),
            syn::UseTree::Rename(rename) => self.import(&rename.ident, &rename.rename, path),
        }
    }

    fn import(&mut self, name: &syn::Ident, here: &syn::Ident, mut path: Vec<String>) {
        let mut here = here.to_string();
        if name == "self" {
            here = path.last().cloned().unwrap_or_default();
        } else {
            path.push(name.to_string());
        }
        self.names.uses.insert(here, path.clone());
        self.names.paths.insert(path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().starts_with("test")
        }
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_test(&module.attrs) {
            return;
        }
        match &module.content {
            None => self.names.children.push(module.ident.to_string()),
            Some(_) => syn::visit::visit_item_mod(self, module),
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&item.tree, Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string());
        self.names.paths.insert(segments.collect());
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)]) -> Result<String> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            let file = folder.path().join("src").join(name);
            fs::create_dir_all(file.parent().context("no folder")?)?;
            fs::write(file, text)?;
        }
        circles_of(folder.path())
    }

    #[test]
    fn a_circle_by_imports_is_told_with_its_ties() -> Result<()> {
        let said = said(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; impl B { fn f(_: &super::a::A) {} }"),
        ])?;
        assert!(said.contains("a -> b: B in a"), "{said}");
        assert!(said.contains("b -> a: super::a::A in b"), "{said}");
        Ok(())
    }

    #[test]
    fn a_re_export_hides_no_circle() -> Result<()> {
        let said = said(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::A; pub use c::B;"),
            ("a.rs", "use crate::B; pub struct A(B);"),
            ("b.rs", "use crate::A; pub struct B(A);"),
            ("c.rs", "pub use super::b::B;"),
        ])?;
        assert!(said.contains("a -> b") && said.contains("b -> a"), "{said}");
        Ok(())
    }

    #[test]
    fn a_folder_and_its_files_are_one_room_and_have_rooms_inside() -> Result<()> {
        let inside = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod x; mod y; pub struct A(x::X);"),
            ("a/x.rs", "use super::A; pub struct X(Box<A>);"),
            ("a/y.rs", "use super::x::X;"),
        ];
        assert_eq!(said(&inside)?, "");
        let mut tied = inside;
        tied[2].1 = "use super::y::Y; pub struct X(Y);";
        assert!(said(&tied)?.contains("x -> y"));
        Ok(())
    }

    #[test]
    fn what_only_tests_use_ties_nothing() -> Result<()> {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a; }"),
        ];
        assert_eq!(said(&files)?, "");
        Ok(())
    }
}
