//! Builds the kernel side from source when feature `ebpf` is on, and does nothing otherwise.
//!
//! The kernel side needs a compiler that has the source of `core` beside it (the BPF target has none prebuilt) and
//! `bpf-linker`. Both are looked for in the usual places; cargo itself is the one that runs this build. The result is
//! `flowtap.bpf.o` in the build script's output directory.
//!
//! - `FLOWTAP_BPF_RUSTC`: the compiler to take.
//! - `FLOWTAP_BPF_OBJECT`: an object built elsewhere, for machines without that compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "flowtap.bpf.o";
const LINKER: &str = "bpf-linker";
const HOW_TO_GO_ON: &str = "run `make setup`, or build with `--no-default-features` to leave the kernel side out";

fn main() {
    tell("rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return;
    }
    if let Err(problem) = build() {
        tell(&format!("error={problem}; {HOW_TO_GO_ON}"));
    }
}

/// A build script talks to cargo on standard output.
fn tell(instruction: &str) {
    println!("cargo::{instruction}");
}

fn build() -> Result<(), String> {
    for variable in ["FLOWTAP_BPF_OBJECT", "FLOWTAP_BPF_RUSTC", "PATH"] {
        tell(&format!("rerun-if-env-changed={variable}"));
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = match env::var_os("FLOWTAP_BPF_OBJECT") {
        Some(object) => PathBuf::from(object),
        None => compile(&out)?,
    };
    tell(&format!("rerun-if-changed={}", built.display()));
    fs::copy(&built, out.join(OBJECT)).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// Runs cargo on `ebpf/`; the answer is where the object lies.
fn compile(out: &Path) -> Result<PathBuf, String> {
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../ebpf");
    for part in ["src", "abi/src", "abi/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        tell(&format!("rerun-if-changed={}", source.join(part).display()));
    }
    let rustc = rustc().ok_or("no Rust compiler with the source of its own standard library was found")?;
    let linker = in_path(LINKER).or_else(|| in_cargo_home(LINKER)).ok_or("`bpf-linker` was not found in PATH")?;
    // OUT_DIR is <target>/<profile>/build/<package>/out. One directory serves all profiles, and as it is not the one
    // that the running cargo has locked, neither waits for the other.
    let target_dir = out.ancestors().nth(4).ok_or("the output directory is not inside a target directory")?.join("bpf");
    let flags = ["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned(), format!("-Clinker={}", linker.display())];

    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THE_RUNNING_BUILD.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .current_dir(&source)
        .env("RUSTC", rustc)
        // Building `core` for a target that has none, and the kernel's atomic instructions, are not stable yet.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--release", "--locked", "-Zbuild-std=core", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .status()
        .map_err(|error| format!("cargo could not be run: {error}"))?;
    if !status.success() {
        return Err("the kernel side did not build (the compiler's messages stand above)".to_owned());
    }
    Ok(target_dir.join(TARGET).join("release/flowtap"))
}

/// Settings of the build that runs this script, which would otherwise reach the one inside.
const OF_THE_RUNNING_BUILD: [&str; 9] = [
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "CARGO_ENCODED_",
    "CARGO_BUILD_",
    "CARGO_TARGET_",
    "CARGO_PROFILE_",
    "CARGO_UNSTABLE_",
    "LD_LIBRARY_PATH",
];

/// The first compiler that has the source of `core`: the one named, the nightly of rustup, the system's own.
fn rustc() -> Option<PathBuf> {
    if let Some(named) = env::var_os("FLOWTAP_BPF_RUSTC") {
        return Some(named.into());
    }
    let nightly = answer(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
    let candidates = nightly.into_iter().chain(["/usr/bin/rustc".to_owned()]);
    candidates.map(PathBuf::from).find(|rustc| {
        answer(Command::new(rustc).args(["--print", "sysroot"]))
            .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
    })
}

/// What a command prints, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Where cargo installs programs, which need not be in PATH.
fn in_cargo_home(program: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("bin").join(program)).filter(|file| file.is_file())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
