//! Every public item says what it is, and so does every file; no field says its own
//! name. What macros make is not seen.
//!
//! The compiler's `missing_docs` asks for a sentence at each field as well, and what
//! there is to say of `id` is then "its id".

use crate::shell::root;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use syn::visit::Visit;

/// Words that say nothing by themselves.
const EMPTY: &[&str] = &[
    "the", "a", "an", "its", "it", "of", "this", "that", "these", "those", "which", "who", "whom",
    "whose", "what", "is", "are", "was", "in", "one", "by", "as", "has", "s",
];
/// Whose fields' docs are the help of a command line.
const HELP: &[&str] = &["Args", "Parser", "Subcommand", "ValueEnum"];

pub(crate) fn check() -> Result<()> {
    let mut faults = vec![];
    for folder in ["crates", "cmd", "chaos-tests"] {
        files(&root().join(folder), &mut |file| look(file, &mut faults))?;
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn files(folder: &Path, act: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, act)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            act(&path)?;
        }
    }
    Ok(())
}

fn look(file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let place = file.strip_prefix(root()).unwrap_or(file).display().to_string();
    let text = fs::read_to_string(file).with_context(|| place.clone())?;
    let tree = syn::parse_file(&text).with_context(|| place.clone())?;
    let mut reader = Reader { is_help: false, faults: vec![] };
    if doc(&tree.attrs).is_none() && is_room(Path::new(&place)) {
        reader.faults.push("the file does not say what it is".into());
    }
    reader.visit_file(&tree);
    faults.extend(reader.faults.into_iter().map(|fault| format!("{place}: {fault}")));
    Ok(())
}

/// Not the tests of one.
fn is_room(file: &Path) -> bool {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    let is_tests = |part: &_| part == "tests" || part == "tests.rs";
    parts.iter().any(|part| part == "src") && !parts.iter().any(is_tests)
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| !word.is_empty() && !EMPTY.contains(&word.as_str())).collect()
}

/// Whether `doc` has no word that `name` has not.
fn repeats(name: &str, doc: &str) -> bool {
    let named: BTreeSet<String> = name.split('_').map(str::to_lowercase).collect();
    let is_named = |word: &String| {
        let singular = word.strip_suffix('s').unwrap_or(word);
        named.contains(word) || named.contains(singular) || named.contains(&format!("{word}s"))
    };
    words(doc).iter().all(is_named)
}

/// The text of an item's doc; `None`: it has none.
fn doc(attributes: &[syn::Attribute]) -> Option<String> {
    let text = |attribute: &syn::Attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(literal) = &pair.value else { return None };
        let syn::Lit::Str(text) = &literal.lit else { return None };
        pair.path.is_ident("doc").then(|| text.value())
    };
    let lines: Vec<_> = attributes.iter().filter_map(text).collect();
    (!lines.is_empty()).then(|| lines.join(" "))
}

fn mentions(attributes: &[syn::Attribute], name: &str, words: &[&str]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident(name) => {
            let text = list.tokens.to_string();
            let mut named = text.split(|c: char| !c.is_ascii_alphanumeric());
            named.any(|word| words.contains(&word))
        }
        _ => false,
    })
}

struct Reader {
    /// Within a type of a command line.
    is_help: bool,
    faults: Vec<String>,
}

impl Reader {
    fn item(
        &mut self,
        visible: &syn::Visibility,
        attributes: &[syn::Attribute],
        name: &syn::Ident,
    ) {
        let is_public = matches!(visible, syn::Visibility::Public(_));
        if is_public && doc(attributes).is_none() {
            self.faults.push(format!("`{name}` is public and does not say what it is"));
        }
    }

    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.is_help, mentions(attributes, "derive", HELP));
        visit(self);
        self.is_help = outer;
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !mentions(&module.attrs, "cfg", &["test"]) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.item(&item.vis, &item.attrs, &item.sig.ident);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.item(&item.vis, &item.attrs, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.item(&item.vis, &item.attrs, &item.ident);
        for part in &item.items {
            match part {
                syn::TraitItem::Fn(part) => self.item(&item.vis, &part.attrs, &part.sig.ident),
                syn::TraitItem::Const(part) => self.item(&item.vis, &part.attrs, &part.ident),
                syn::TraitItem::Type(part) => self.item(&item.vis, &part.attrs, &part.ident),
                _ => {}
            }
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.vis, &item.attrs, &item.ident);
        self.within(&item.attrs, |reader| syn::visit::visit_item_struct(reader, item));
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.vis, &item.attrs, &item.ident);
        item.variants.iter().for_each(|one| self.item(&item.vis, &one.attrs, &one.ident));
        self.within(&item.attrs, |reader| syn::visit::visit_item_enum(reader, item));
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let (Some(name), Some(doc)) = (&field.ident, doc(&field.attrs))
            && !self.is_help
            && repeats(&name.to_string(), &doc)
        {
            self.faults.push(format!("`{name}` says its own name: {}", doc.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Result<Vec<String>> {
        let mut reader = Reader { is_help: false, faults: vec![] };
        reader.visit_file(&syn::parse_file(text)?);
        Ok(reader.faults)
    }

    #[test]
    fn a_field_that_says_its_own_name_is_found() -> Result<()> {
        let said = faults(
            "/// A node.
            pub struct Node {
                /// Its id.
                pub id: u64,
                /// Which VIPs.
                vips: u8,
                /// Until when, ms since 1970.
                pub until: u64,
            }",
        )?;
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("`id`") && said[1].contains("`vips`"), "{said:?}");
        let help = "#[derive(clap::Args)] struct Add { /// Its name.\n name: String }";
        assert_eq!(faults(help)?, [""; 0]);
        Ok(())
    }

    #[test]
    fn a_public_item_that_says_nothing_is_found() -> Result<()> {
        let said = faults(
            "pub struct A; pub(crate) struct B; /// C.\n pub fn c() {}
            impl A { pub fn d() {} fn e() {} } /// F.\n pub trait F { fn g(); }
            /// I.
 pub enum I { J, /// K.
 K } impl A { pub const L: u8 = 1; } pub static M: u8 = 1;
            #[cfg(test)] mod tests { pub fn h() {} }",
        )?;
        let named = |name: &str| said.iter().any(|fault| fault.contains(&format!("`{name}`")));
        assert!(["A", "d", "g", "J", "L", "M"].into_iter().all(named), "{said:?}");
        assert_eq!(said.len(), 6, "{said:?}");
        Ok(())
    }
}
