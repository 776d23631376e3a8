//! Tests that an error's text contains its cause, and that the cause is then no source, so that it is printed once.

use std::path::{Path, PathBuf};

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    nested.filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn only_transparent_errors_have_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join("src/error_texts.rs");
    let files = [root.join("src"), root.join("crates/diffusion-samplers/src")]
        .map(|folder| sources(&folder))
        .concat();
    for file in files.into_iter().filter(|file| *file != own) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("#[source]"),
            "{}: put the cause into the text, without #[source]",
            file.display()
        );
        for (start, _) in text.match_indices("#[from]") {
            let attribute = text[..start].rfind("#[error(").map(|at| &text[at..start]);
            assert!(
                attribute.is_some_and(|attribute| attribute.starts_with("#[error(transparent)]")),
                "{}: implement From by hand, or make the error transparent",
                file.display()
            );
        }
    }
}
