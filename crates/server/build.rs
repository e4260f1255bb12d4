//! Takes the files of the dashboard, `ui/dist`, into the program, as they are and compressed.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut paths = Vec::new();
    files(&dist, &mut paths)?;
    paths.sort();
    let mut table = String::from("static FILES: &[File] = &[\n");
    for (number, path) in paths.iter().enumerate() {
        let content = std::fs::read(path)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content)?;
        let gzip = out.join(format!("dashboard-{number}.gz"));
        std::fs::write(&gzip, encoder.finish()?)?;
        let name = path.strip_prefix(&dist)?.to_str().ok_or("names of files are UTF-8")?.replace('\\', "/");
        writeln!(
            table,
            "File {{ path: {:?}, plain: include_bytes!({path:?}), gzip: include_bytes!({gzip:?}) }},",
            format!("/{name}"),
        )?;
    }
    table.push_str("];\n");
    std::fs::write(out.join("dashboard.rs"), table)?;
    Ok(())
}

/// Every file in a folder and those below it.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}
