//! `cargo image`: gwmon as a container image, without Docker.

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, println};
use anstyle::AnsiColor;
use anyhow::Result;
use gwmon_cluster::{scenario, write_image, write_static_image};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (arch, rest) = match &words[..] {
        ["--arch", arch, rest @ ..] => (Some(*arch), rest),
        rest => (None, rest),
    };
    let archive = match rest {
        [] => PathBuf::from("gwmon.tar"),
        [path] if !path.starts_with('-') => PathBuf::from(path),
        _ => {
            eprintln!(
                "Builds gwmon and writes its container image for `docker load` and the like.\n\nUsage: cargo image [-- [--arch amd64|arm64] [FILE]]   [default: gwmon.tar, of this machine's architecture]\n\nWith --arch the binary is static, and the image the same wherever it is made. It takes rustup and, for another\narchitecture, its C compiler (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)."
            );
            return ExitCode::from(2);
        }
    };
    match make(&archive, arch) {
        Ok(image) => {
            println!("{image} is in {}", archive.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{red}error:{red:#} {error:#}", red = AnsiColor::Red.on_default().bold());
            ExitCode::FAILURE
        }
    }
}

fn make(archive: &std::path::Path, arch: Option<&str>) -> Result<String> {
    let image = scenario::image()?;
    match arch {
        Some(arch) => write_static_image(archive, &image, &scenario::build_static(arch)?, arch)?,
        None => write_image(archive, &image, &scenario::build_gwmon("dist")?)?,
    }
    Ok(image)
}
