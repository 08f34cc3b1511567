//! Homes to measure with: always the same content.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A home and how it is made.
pub struct Home {
    pub name: &'static str,
    /// Fills it, so many times smaller than it is meant to be.
    pub fill: fn(&Path, usize),
}

/// Bytes of text that files are cut from.
const POOL: usize = 64 << 20;

pub const ALL: [Home; 4] = [
    Home {
        name: "80,000 small files",
        fill: small,
    },
    Home {
        name: "4 incompressible files",
        fill: noise,
    },
    Home {
        name: "node_modules-like",
        fill: packages,
    },
    Home {
        name: "13 bytes",
        fill: |root, _| fs::write(root.join("hello"), "hello, world\n").unwrap(),
    },
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Text that compresses about as source code does, and does not repeat within zstd's window.
fn text(random: &mut Random, length: usize) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "const",
        "function",
        "return",
        "export",
        "default",
        "import",
        "require(",
        "module",
        "this.",
        "=> {",
        "});",
        "if (",
        "} else {",
        "null",
        "undefined",
        "/* ",
        " */",
        "\n    ",
        "\n",
        "'use strict';",
        "Object.",
        "prototype",
        "length",
        " === ",
    ];
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        match random.below(4) {
            0 => write!(out, "_{:x} ", random.next() & 0xff_ffff).unwrap(),
            _ => write!(out, "{} ", WORDS[random.below(WORDS.len())]).unwrap(),
        }
    }
    out
}

/// 80,000 files of 6 to 19 KB.
fn small(root: &Path, smaller: usize) {
    let mut random = Random(1);
    let pool = text(&mut random, POOL / smaller);
    for folder in 0..200 / smaller {
        let dir = root.join(format!("folder-{folder:03}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..400 {
            let length = 6_000 + random.below(13_400);
            let at = random.below(pool.len() - length);
            fs::write(dir.join(format!("file-{file:03}")), &pool[at..at + length]).unwrap();
        }
    }
}

/// 4 files of 256 MiB.
fn noise(root: &Path, smaller: usize) {
    let mut random = Random(2);
    for i in 0..4 {
        let mut file = File::create(root.join(format!("noise-{i}"))).unwrap();
        for _ in 0..256 / smaller {
            let block: Vec<u8> = (0..1 << 17)
                .flat_map(|_| random.next().to_le_bytes())
                .collect();
            file.write_all(&block).unwrap();
        }
    }
}

/// 1,400 packages, some nested in others: small sources, a few large bundles, links in `.bin`.
fn packages(root: &Path, smaller: usize) {
    let mut random = Random(3);
    let pool = text(&mut random, POOL / smaller.min(16));
    let modules = root.join("project/node_modules");
    fs::create_dir_all(modules.join(".bin")).unwrap();
    for i in 0..1400 / smaller {
        let parent = match i % 7 {
            6 => modules.join(format!("package-{}/node_modules", i - 1)),
            _ => modules.clone(),
        };
        let package = parent.join(format!("package-{i}"));
        for folder in ["", "lib", "lib/internal", "dist/esm", "dist/cjs", "types"] {
            let dir = package.join(folder);
            fs::create_dir_all(&dir).unwrap();
            for file in 0..1 + random.below(9) {
                // Most are small; one in a hundred is a bundle of a megabyte or so.
                let length = match random.below(100) {
                    0 => 500_000 + random.below(1_500_000),
                    n if n < 30 => 10_000 + random.below(30_000),
                    _ => 200 + random.below(8_000),
                };
                let at = random.below(pool.len() - length);
                let name = dir.join(format!("module-{file}.js"));
                fs::write(name, &pool[at..at + length]).unwrap();
            }
        }
        let link = modules.join(format!(".bin/tool-{i}"));
        symlink(format!("../package-{i}/lib/module-0.js"), link).unwrap();
    }
}
