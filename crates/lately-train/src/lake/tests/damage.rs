//! Damaged objects: refused or moved aside, with what to do, never a panic.

use super::*;

#[test]
fn a_manifest_of_a_newer_build_is_not_called_damaged() {
    let (objects, lake) = lake_of(&steady(3), &small());
    let name = objects.names().into_iter().rfind(|name| name.starts_with("manifests/")).unwrap();
    drop(lake);
    let text = String::from_utf8(objects.get(&name).unwrap().unwrap()).unwrap();
    objects.put(&name, text.replacen("\"format\":1", "\"format\":2", 1).as_bytes()).unwrap();
    assert!(matches!(open(&objects, &small()), Err(LakeError::Newer { .. })));
}

#[test]
fn a_damaged_file_is_moved_aside_and_the_rest_stays_readable() {
    let log = steady(24);
    for kind in ["requests/", "items/", "corrections/"] {
        for damage in 0..4 {
            let (objects, mut lake) = lake_of(&log, &LakeConfig { commit_candidates: 4, ..small() });
            let late = (0..24).map(|n| {
                action(&format!("u{}", n % 5), &format!("i{}", n % 9), "hide", 1_200 * n as i64 + 9, "")
            });
            let log: Vec<Event> = log.iter().cloned().chain(late).collect();
            lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
            let whole = all(&lake).requests.len();
            let name = objects.names().into_iter().find(|name| name.starts_with(kind)).unwrap();
            {
                let mut all = objects.objects.lock().unwrap();
                let bytes = all.get_mut(&name).unwrap();
                let at = bytes.len() * damage / 4;
                if damage % 2 == 0 { bytes[at] ^= 1 << damage } else { bytes.truncate(at) }
            }
            let left = all(&lake).requests.len();
            assert_eq!(left, if kind == "corrections/" { whole } else { whole - 1 }, "{name}");
            lake.maintain(LATER).unwrap();
            assert!(lake.summary().quarantined.contains(&name), "{name}: {:?}", lake.summary().quarantined);
            assert!(objects.names().contains(&format!("quarantine/{name}")));
            lake.maintain(LATER).unwrap();
            assert_eq!(all(&lake).requests.len(), left);
            assert!(!objects.names().contains(&name));
            drop(lake);
            let mut lake = Lake::rebuild(objects.clone(), &schema(), &small()).unwrap();
            lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
            assert_eq!(rows(&all(&lake)), rows(&joined(&log, JoinOptions::default())));
        }
    }
}

#[test]
fn of_a_damaged_manifest_the_former_one_is_used_and_without_one_it_is_refused() {
    let log = steady(60);
    for damage in 0..8 {
        let (objects, lake) = lake_of(&log, &LakeConfig { commit_candidates: 40, ..small() });
        let want = rows(&all(&lake));
        drop(lake);
        let manifests: Vec<String> =
            objects.names().into_iter().filter(|n| n.starts_with("manifests/")).collect();
        assert_eq!(manifests.len(), 2);
        let harm = |name: &String| {
            let mut all = objects.objects.lock().unwrap();
            let bytes = all.get_mut(name).unwrap();
            let at = bytes.len() * damage / 8;
            if damage % 2 == 0 { bytes[at] ^= 1 } else { bytes.truncate(at) }
        };
        harm(&manifests[1]);
        let mut lake = open(&objects, &small()).unwrap();
        assert!(lake.summary().quarantined.contains(&manifests[1]));
        lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
        assert_eq!(rows(&all(&lake)), want, "what the lost one named is joined again, once");
        drop(lake);
        objects.names().iter().filter(|n| n.starts_with("manifests/")).for_each(harm);
        assert!(matches!(open(&objects, &small()), Err(LakeError::Manifest { .. })));
        let mut lake = Lake::rebuild(objects.clone(), &schema(), &small()).unwrap();
        lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
        assert_eq!(rows(&all(&lake)), want);
    }
}

#[test]
fn damaged_state_is_refused_with_what_to_do() {
    let log = steady(60);
    let (objects, lake) = lake_of(&log, &LakeConfig { commit_candidates: 40, ..small() });
    drop(lake);
    let states: Vec<String> = objects.names().into_iter().filter(|n| n.starts_with("state/")).collect();
    for name in states {
        let bytes = objects.objects.lock().unwrap()[&name].clone();
        objects.objects.lock().unwrap().insert(name.clone(), bytes[..bytes.len() / 2].to_vec());
        match open(&objects, &small()) {
            Err(error) => assert!(error.to_string().contains("lately join --rebuild"), "{error}"),
            Ok(lake) => {
                let mut needed = lake.manifest.state.iter().chain(&lake.manifest.since);
                assert!(!needed.any(|object| object.name == name), "{name} is needed");
            }
        }
        objects.objects.lock().unwrap().insert(name, bytes);
    }
}
