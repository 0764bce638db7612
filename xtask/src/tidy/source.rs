//! What a parser sees in the Rust files: functions, `unsafe`, left-over macros, the docs of a crate.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::error::TaskError;
use crate::workspace::{self, Package};

/// Where `unsafe` may stand: SIMD, and the calls of a GPU's driver and compiler.
const UNSAFE_ALLOWED: &[&str] = &["crates/lately-kernels/", "crates/lately-cuda/"];

/// Macros that mark unfinished work or debugging.
const LEFT_OVERS: &[&str] = &["todo", "unimplemented", "dbg"];

/// One Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the workspace's root.
    pub(super) path: String,
    /// All its lines.
    pub(super) lines: usize,
    /// Its functions, with those of tests.
    pub(super) functions: Vec<Function>,
    /// Lines with the word `unsafe` in code.
    unsafe_lines: Vec<usize>,
    /// (line, name) of left-over macros.
    left_overs: Vec<(usize, String)>,
    /// Whether the file opens with `//!`.
    documented: bool,
}

/// One function with a body. Those that macros make are not seen.
#[derive(Debug)]
pub(super) struct Function {
    /// Name.
    pub(super) name: String,
    /// Its first line.
    pub(super) at: usize,
    /// Lines from `fn` to the closing brace.
    pub(super) lines: usize,
    /// Whether it stands in test code.
    pub(super) test: bool,
}

/// Parses all Rust files among `files`.
pub(super) fn read_all(files: &[String]) -> Result<Vec<Source>, TaskError> {
    let rust = files.iter().filter(|f| f.ends_with(".rs"));
    rust.map(|path| read(path, &workspace::root().join(path))).collect()
}

fn read(path: &str, file: &Path) -> Result<Source, TaskError> {
    parse(path, &String::from_utf8_lossy(&workspace::read(file)?))
}

fn parse(path: &str, text: &str) -> Result<Source, TaskError> {
    let wrong = |e: syn::Error| TaskError::Rust {
        path: path.to_owned(),
        line: e.span().start().line,
        message: e.to_string(),
    };
    let file = syn::parse_file(text).map_err(wrong)?;
    let tokens: TokenStream = syn::parse_str(text).map_err(wrong)?;
    let folder = path.split('/').any(|part| matches!(part, "tests" | "examples" | "benches"));
    let test = folder || path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
    let mut functions = Functions { found: Vec::new(), test };
    functions.visit_file(&file);
    let mut source = Source {
        path: path.to_owned(),
        lines: text.lines().count(),
        functions: functions.found,
        unsafe_lines: Vec::new(),
        left_overs: Vec::new(),
        documented: file
            .attrs
            .iter()
            .any(|a| matches!(a.style, syn::AttrStyle::Inner(_)) && a.path().is_ident("doc")),
    };
    words(tokens, &mut source);
    source.unsafe_lines.dedup();
    Ok(source)
}

/// Walks all tokens, those inside macros too, where the syntax tree does not reach.
fn words(tokens: TokenStream, source: &mut Source) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => words(group.stream(), source),
            TokenTree::Ident(word) => {
                let line = word.span().start().line;
                if word == "unsafe" {
                    source.unsafe_lines.push(line);
                }
                let called = matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '!');
                if called && LEFT_OVERS.iter().any(|name| word == name) {
                    source.left_overs.push((line, word.to_string()));
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

struct Functions {
    found: Vec<Function>,
    /// Whether the visitor is inside test code.
    test: bool,
}

impl Functions {
    fn add(&mut self, attrs: &[syn::Attribute], sig: &syn::Signature, block: &syn::Block) {
        let first = sig.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        self.found.push(Function {
            name: sig.ident.to_string(),
            at: first,
            lines: last - first + 1,
            test: self.test || is_test(attrs),
        });
    }

    /// Visits what stands under `attrs`, as test code if they say so.
    fn within(&mut self, attrs: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= is_test(attrs);
        visit(self);
        self.test = before;
    }
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|a| {
        let named = a.path().segments.last().is_some_and(|s| s.ident == "test");
        let cfg = a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test"));
        named || cfg
    })
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, |v| syn::visit::visit_item_mod(v, item));
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        self.within(&item.attrs, |v| syn::visit::visit_item_fn(v, item));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.attrs, &item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.attrs, &item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

/// Prints the lines with `unsafe` and returns those outside the crates that may have it, and left-over macros.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    println!("unsafe, lines by file (allowed in {})", UNSAFE_ALLOWED.join(", "));
    let mut problems = Vec::new();
    let mut all = 0;
    for Source { path, unsafe_lines, left_overs, .. } in sources {
        all += unsafe_lines.len();
        if !unsafe_lines.is_empty() {
            println!("  {:>4}  {path}", unsafe_lines.len());
        }
        if !UNSAFE_ALLOWED.iter().any(|folder| path.starts_with(folder)) {
            problems
                .extend(unsafe_lines.iter().map(|line| format!("{path}:{line}: unsafe may not stand here")));
        }
        problems.extend(left_overs.iter().map(|(line, name)| format!("{path}:{line}: {name}! is left over")));
    }
    println!("  {all:>4}  in all");
    problems
}

/// A crate needs a description, docs at its root, and the workspace's lints.
pub(super) fn crate_roots(packages: &[Package]) -> Result<Vec<String>, TaskError> {
    let mut problems = Vec::new();
    for package in packages {
        let name = &package.name;
        if package.description.as_deref().is_none_or(|d| d.trim().is_empty()) {
            problems.push(format!("{name}: Cargo.toml has no description"));
        }
        let manifest = String::from_utf8_lossy(&workspace::read(&package.manifest_path)?).into_owned();
        if !manifest.contains("[lints]\nworkspace = true") {
            problems.push(format!("{name}: Cargo.toml lacks `[lints] workspace = true`"));
        }
        for target in &package.targets {
            let root = target.kind.iter().any(|k| matches!(k.as_str(), "lib" | "bin"));
            if root && !read(&target.name, &target.src_path)?.documented {
                problems.push(format!("{name}: {} has no `//!` docs", target.src_path.display()));
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"//! Docs that say unsafe and todo!() harm nobody.
/// unsafe
pub fn one() -> &'static str { "unsafe { dbg!(1) }" }
fn two() {
    let f = || { dbg!(1) };
    f();
}
macro_rules! hidden { () => { unsafe { std::hint::unreachable_unchecked() } } }
trait T { fn declared(&self); fn given(&self) { todo!() } }
#[cfg(test)]
mod tests {
    #[test]
    fn three() {}
}
"#;

    #[test]
    fn functions_are_found_with_lines_and_tests_apart() {
        let source = parse("a.rs", TEXT).unwrap();
        let found: Vec<_> = source.functions.iter().map(|f| (f.name.as_str(), f.lines, f.test)).collect();
        assert_eq!(found, [("one", 1, false), ("two", 4, false), ("given", 1, false), ("three", 1, true)]);
        assert!(source.documented);
        assert!(parse("crates/a/tests/b.rs", "fn f() {}").unwrap().functions[0].test);
    }

    #[test]
    fn unsafe_and_left_overs_are_found_in_code_alone() {
        let source = parse("a.rs", TEXT).unwrap();
        assert_eq!(source.unsafe_lines, [8], "in a macro, not in docs and texts");
        assert_eq!(source.left_overs, [(5, "dbg".to_owned()), (9, "todo".to_owned())]);
        assert_eq!(check(&[source]).len(), 3);
        let kernels = parse("crates/lately-kernels/src/a.rs", "unsafe fn f() {}").unwrap();
        assert_eq!(check(&[kernels]), [] as [String; 0]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_named_with_its_line() {
        let error = parse("a.rs", "fn f() {}\nfn {").unwrap_err().to_string();
        assert!(error.starts_with("a.rs:2: not Rust"), "{error}");
    }
}
