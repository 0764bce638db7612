//! Which crate may use which: the table of the architecture, against what `cargo metadata` says.

use std::collections::BTreeMap;

use crate::workspace::Package;

/// What a crate of the workspace may use of the others.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
    /// Whether tokio may be a dependency of any kind.
    tokio: bool,
}

/// Stands for every crate of the table.
const ALL: &[&str] = &["*"];

/// The rooms. A new crate gets its line here, with the force that justifies it in ARCHITECTURE.md.
const ROOMS: &[Room] = &[
    Room { name: "lately-features", may_use: &[], tokio: false },
    Room { name: "lately-kernels", may_use: &[], tokio: false },
    Room { name: "lately-model", may_use: &["lately-features", "lately-kernels"], tokio: false },
    Room { name: "lately-cuda", may_use: &["lately-features", "lately-model"], tokio: false },
    Room { name: "lately-store", may_use: &["lately-features"], tokio: true },
    Room { name: "lately-experiment", may_use: &["lately-features"], tokio: false },
    Room {
        name: "lately-rank",
        may_use: &["lately-features", "lately-model", "lately-store", "lately-experiment"],
        tokio: true,
    },
    Room {
        name: "lately-train",
        may_use: &["lately-features", "lately-model", "lately-store"],
        tokio: false,
    },
    Room { name: "lately-server", may_use: &["lately-features", "lately-store", "lately-rank"], tokio: true },
    Room { name: "lately", may_use: ALL, tokio: true },
    Room { name: "lately-fuzz", may_use: ALL, tokio: false },
    Room { name: "xtask", may_use: &[], tokio: false },
];

/// Edges that not even tests may have, in either direction.
const NEVER: &[(&str, &str)] = &[("lately-rank", "lately-train"), ("lately-store", "lately-model")];

/// Crates that nobody uses.
const TOPS: &[&str] = &["lately", "lately-fuzz", "xtask"];

/// One crate's use of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    from: String,
    to: String,
    /// Only for tests, examples and benches.
    dev: bool,
}

/// Prints the edges, a line a crate.
pub(super) fn print(packages: &[Package], edges: &[Edge]) {
    println!("crate edges");
    let mut order: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    order.sort_by_key(|name| ROOMS.iter().position(|r| r.name == *name));
    for name in order {
        let list = |dev: bool| {
            let to: Vec<&str> =
                edges.iter().filter(|e| e.from == name && e.dev == dev).map(|e| short(&e.to)).collect();
            if to.is_empty() { "-".to_owned() } else { to.join(", ") }
        };
        println!("  {:<16} -> {:<51} tests: {}", name, list(false), list(true));
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("lately-").unwrap_or(name)
}

/// Hands the edges to `report` and returns those that the table forbids.
pub(super) fn check(packages: &[Package], report: &dyn Fn(&[Package], &[Edge])) -> Vec<String> {
    let edges = of(packages);
    report(packages, &edges);
    let mut problems: Vec<String> = edges.iter().filter_map(forbidden).collect();
    for package in packages {
        let Some(room) = ROOMS.iter().find(|r| r.name == package.name) else {
            problems.push(format!("{}: not in the table of xtask/src/tidy/edges.rs", package.name));
            continue;
        };
        if !room.tokio && package.dependencies.iter().any(|d| d.name == "tokio") {
            problems
                .push(format!("{}: tokio stays out of it; async belongs to server and binary", room.name));
        }
    }
    problems
}

/// The edges among the workspace's crates, sorted; a build dependency counts as a normal one.
fn of(packages: &[Package]) -> Vec<Edge> {
    let mut dev_only: BTreeMap<(String, String), bool> = BTreeMap::new();
    for package in packages {
        for dependency in &package.dependencies {
            if !packages.iter().any(|p| p.name == dependency.name) {
                continue;
            }
            let dev = dependency.kind.as_deref() == Some("dev");
            let key = (package.name.clone(), dependency.name.clone());
            dev_only.entry(key).and_modify(|d| *d &= dev).or_insert(dev);
        }
    }
    dev_only.into_iter().map(|((from, to), dev)| Edge { from, to, dev }).collect()
}

fn forbidden(edge: &Edge) -> Option<String> {
    let Edge { from, to, dev } = edge;
    let pair = |(a, b): &(&str, &str)| (from == a && to == b) || (from == b && to == a);
    if NEVER.iter().any(pair) {
        return Some(format!("{from} -> {to}: never, not even in tests"));
    }
    if TOPS.contains(&to.as_str()) {
        return Some(format!("{from} -> {to}: nobody uses {to}"));
    }
    let room = ROOMS.iter().find(|r| r.name == from)?;
    let allowed = room.may_use == ALL || room.may_use.contains(&to.as_str());
    (!allowed && !dev).then(|| format!("{from} -> {to}: the table of the architecture does not have it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{self, Dependency};

    /// (crate, kind) pairs.
    type Uses = [(&'static str, Option<&'static str>)];

    fn package(name: &str, uses: &Uses) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        Package {
            name: name.to_owned(),
            description: None,
            manifest_path: "Cargo.toml".into(),
            dependencies: uses.iter().map(dependency).collect(),
            targets: Vec::new(),
        }
    }

    fn problems(list: &[(&str, &Uses)]) -> Vec<String> {
        let mut packages: Vec<Package> = list.iter().map(|(name, uses)| package(name, uses)).collect();
        for room in ROOMS {
            if !list.iter().any(|(name, _)| *name == room.name) {
                packages.push(package(room.name, &[]));
            }
        }
        check(&packages, &|_, _| {})
    }

    #[test]
    fn the_real_tree_keeps_to_the_table() {
        let packages = workspace::packages().unwrap();
        assert!(packages.len() >= 9, "all crates are seen");
        let seen = std::cell::Cell::new(0);
        let found = check(&packages, &|_, edges| seen.set(edges.len()));
        assert_eq!(found, [] as [String; 0]);
        assert!(seen.get() >= 14, "the edges are seen, {} of them", seen.get());
    }

    #[test]
    fn forbidden_edges_are_found() {
        assert_eq!(problems(&[("lately-model", &[("lately-features", None), ("serde", None)])]).len(), 0);
        for (from, to) in [
            ("lately-rank", "lately-train"),
            ("lately-train", "lately-rank"),
            ("lately-store", "lately-model"),
            ("lately-server", "lately-model"),
            ("lately-server", "lately-train"),
            ("lately-features", "lately-kernels"),
            ("lately-train", "lately"),
        ] {
            assert_eq!(problems(&[(from, &[(to, None)])]).len(), 1, "{from} -> {to}");
            assert_eq!(problems(&[(from, &[(to, Some("build"))])]).len(), 1, "{from} -> {to}, build");
        }
    }

    #[test]
    fn tests_may_use_more_but_never_join_rank_and_train() {
        assert_eq!(problems(&[("lately-server", &[("lately-model", Some("dev"))])]).len(), 0);
        assert_eq!(problems(&[("lately-rank", &[("lately-train", Some("dev"))])]).len(), 1);
        // Normal and dev at once is normal.
        let both = [("lately-model", Some("dev")), ("lately-model", None)];
        assert_eq!(problems(&[("lately-server", &both)]).len(), 1);
    }

    #[test]
    fn tokio_and_unknown_crates_are_found() {
        assert_eq!(problems(&[("lately-train", &[("tokio", Some("dev"))])]).len(), 1);
        assert_eq!(problems(&[("lately-server", &[("tokio", None)])]).len(), 0);
        assert_eq!(problems(&[("lately-common", &[])]).len(), 1);
    }
}
