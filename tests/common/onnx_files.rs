//! Edits ONNX files as other exporters write them.

use std::io::Write;
use std::path::{Path, PathBuf};

use rten_onnx::onnx::{DataLocation, GraphProto, ModelProto, StringStringEntryProto, TensorProto};

/// Changes the model in a file.
pub fn edit(file: &Path, change: impl FnOnce(&mut ModelProto)) {
    let mut model = ModelProto::parse_buf(&std::fs::read(file).unwrap()).unwrap();
    change(&mut model);
    std::fs::write(file, model.write_buf().unwrap()).unwrap();
}

/// Changes the graph in a file.
pub fn edit_graph(file: &Path, change: impl FnOnce(&mut GraphProto)) {
    edit(file, |model| change(model.graph.as_mut().unwrap()));
}

/// Moves the values of every initializer to the file at the location that `location` returns for its index.
pub fn externalize(file: &Path, location: impl Fn(usize) -> String) {
    let folder = file.parent().unwrap();
    edit_graph(file, |graph| {
        for (index, tensor) in graph.initializer.iter_mut().enumerate() {
            let Some(values) = tensor.raw_data.take() else { continue };
            let location = location(index);
            let path = folder.join(&location);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut data = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            let (offset, values) = (data.metadata().unwrap().len(), values.into_inner());
            data.write_all(&values).unwrap();
            point_to(tensor, &location, offset, values.len());
        }
    });
}

/// Gives a tensor an entry for external data.
pub fn point_to(tensor: &mut TensorProto, location: &str, offset: u64, len: usize) {
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", location.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", len.to_string()),
    ];
    tensor.data_location = Some(DataLocation::EXTERNAL);
}

/// Replaces a file by a link to it in a folder of blobs, as the cache of a hub stores it.
pub fn move_to_blobs(file: &Path, blobs: &Path, name: &str) {
    std::fs::create_dir_all(blobs).unwrap();
    let blob: PathBuf = blobs.join(name);
    std::fs::rename(file, &blob).unwrap();
    std::os::unix::fs::symlink(blob, file).unwrap();
}
