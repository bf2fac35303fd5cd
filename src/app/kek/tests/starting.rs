//! What a start makes of any combination of files, pins and secrets.

use super::{Scene, id, is_resealing, keep_until, lay};
use crate::app::StartError;

/// Files by their endings, the two pins, and the keys that secrets are sealed under.
type Left<'a> = (&'a [(&'a str, char)], [char; 2], &'a [char]);

#[tokio::test(start_paused = true)]
async fn whatever_a_crash_leaves_a_start_goes_on_to_the_right_end() {
    let cases: [(Left<'_>, char); 17] = [
        // Nothing was under way.
        ((&[("", 'A')], ['A', 'A'], &['A']), 'A'),
        ((&[("", 'A'), (".old", 'Z')], ['A', 'A'], &['A']), 'A'),
        // A key was laid down, and the store does not know of it yet.
        ((&[("", 'A'), (".next", 'B')], ['A', 'A'], &['A']), 'B'),
        // Secrets were being sealed anew: before the first, between, after the last.
        ((&[("", 'A'), (".next", 'B')], ['A', 'B'], &['A']), 'B'),
        ((&[("", 'A'), (".next", 'B')], ['A', 'B'], &['A', 'B']), 'B'),
        ((&[("", 'A'), (".next", 'B')], ['A', 'B'], &['B']), 'B'),
        // The store had finished, and the files had not.
        ((&[("", 'A'), (".next", 'B')], ['B', 'B'], &['B']), 'B'),
        (
            (
                &[("", 'A'), (".next", 'B'), (".old", 'A')],
                ['B', 'B'],
                &['B'],
            ),
            'B',
        ),
        ((&[(".next", 'B'), (".old", 'A')], ['B', 'B'], &['B']), 'B'),
        ((&[("", 'B'), (".old", 'A')], ['B', 'B'], &['B']), 'B'),
        // The next key is gone, or is another one, and nothing was sealed under it.
        ((&[("", 'A')], ['A', 'B'], &['A']), 'A'),
        ((&[("", 'A'), (".next", 'C')], ['A', 'B'], &['A']), 'C'),
        // The old key is gone, and nothing is sealed under it any longer.
        ((&[("", 'B')], ['A', 'B'], &['B']), 'B'),
        ((&[(".next", 'B')], ['A', 'B'], &['B']), 'B'),
        // The store is a backup from during the change, or from before it.
        ((&[("", 'B'), (".old", 'A')], ['A', 'B'], &['A', 'B']), 'B'),
        ((&[("", 'B'), (".old", 'A')], ['A', 'A'], &['A']), 'B'),
        (
            (
                &[("", 'C'), (".old", 'A'), (".old.1", 'B')],
                ['A', 'B'],
                &['A', 'B'],
            ),
            'C',
        ),
    ];
    for ((files, pins, sealed), end) in cases {
        let case = format!("{files:?} {pins:?} {sealed:?}");
        let scene = Scene::new(files, pins).await;
        for letter in sealed {
            scene.insert(*letter).await;
        }
        // The last case takes two starts: to the key that was under way, and on.
        let on_the_way = match files.len() == 3 && end == 'C' {
            true => 'B',
            false => end,
        };
        for end in [on_the_way, end] {
            let (keeper, _, _) = scene.keeper().await;
            keep_until(keeper, async || scene.pins().await == [id(end), id(end)]).await;
        }
        assert_eq!(scene.file(""), Some(end), "{case}");
        let number = sealed.len() as u64;
        assert_eq!(scene.sealed().await, [(end, number)].into(), "{case}");
        assert_eq!(scene.file(".next"), None, "{case}");
        // From here on the one file is enough.
        for ending in [".old", ".old.1", ".old.2"] {
            let _ = std::fs::remove_file(scene.folder.path().join(format!("kek{ending}")));
        }
        let (keeper, _, _) = scene.keeper().await;
        assert!(!is_resealing(&keeper), "{case}");
    }
}

#[tokio::test]
async fn a_start_without_a_key_that_is_needed_is_refused_and_changes_nothing() {
    let incomplete = |kek| format!("sealed under the key-encryption key {}, which", id(kek));
    let missing = || "is missing".to_owned();
    let foreign = || "is not the one".to_owned();
    let cases: [(Left<'_>, String); 8] = [
        ((&[("", 'A')], ['A', 'B'], &['A', 'B']), incomplete('B')),
        ((&[("", 'B')], ['A', 'B'], &['A', 'B']), incomplete('A')),
        (
            (&[("", 'A'), (".next", 'C')], ['A', 'B'], &['A', 'B']),
            incomplete('B'),
        ),
        ((&[("", 'B')], ['A', 'A'], &['A']), foreign()),
        (
            (&[("", 'C'), (".next", 'B')], ['A', 'A'], &['A']),
            foreign(),
        ),
        ((&[], ['A', 'A'], &['A']), missing()),
        ((&[(".next", 'B')], ['A', 'A'], &['A']), missing()),
        ((&[(".old", 'A')], ['A', 'A'], &['A']), missing()),
    ];
    for ((files, pins, sealed), words) in cases {
        let scene = Scene::new(files, pins).await;
        for letter in sealed {
            scene.insert(*letter).await;
        }
        let refused = scene.start().await.err().expect("it is refused");
        let text = refused.to_string();
        assert!(text.contains(&words), "{files:?} {pins:?}: {text}");
        assert_eq!(scene.pins().await, pins.map(id));
        for (ending, letter) in files {
            assert_eq!(scene.file(ending), Some(*letter));
        }
    }
}

#[tokio::test]
async fn a_next_file_that_cannot_be_used_keeps_nobody_from_starting_unless_it_is_needed() {
    let scene = Scene::new(&[("", 'A')], ['A', 'A']).await;
    scene.insert('A').await;
    std::fs::write(scene.files.next(), "short").expect("written");
    let (keeper, material, _) = scene.keeper().await;
    assert!(!is_resealing(&keeper));
    let standing = format!("{:?}", super::standing(&material));
    assert!(standing.contains("cannot be used"), "{standing}");

    let scene = Scene::new(&[("", 'A')], ['A', 'B']).await;
    scene.insert('B').await;
    std::fs::write(scene.files.next(), "short").expect("written");
    let refused = scene.start().await.err();
    assert!(matches!(refused, Some(StartError::Kek(_))), "{refused:?}");
}

#[tokio::test]
async fn a_store_without_keys_takes_whatever_key_is_there() {
    let scene = Scene::new(&[("", 'B')], ['A', 'A']).await;
    let (_, _, hsm) = scene.keeper().await;
    assert_eq!(hsm.sealing_id(), id('B'));
    // What is sealed from here on is found again by the next start.
    scene.insert('B').await;
    let (_, _, hsm) = scene.keeper().await;
    assert_eq!(hsm.sealing_id(), id('B'));
    assert_eq!(scene.pins().await, [id('B'), id('B')]);
}

#[tokio::test]
async fn the_first_start_makes_the_key() {
    let scene = Scene::new(&[], ['A', 'A']).await;
    let (_, _, hsm) = scene.keeper().await;
    assert_eq!(scene.pins().await, [hsm.sealing_id(), hsm.sealing_id()]);
    assert!(scene.file("").is_some());
    lay(&scene.files.next(), 'B');
}
