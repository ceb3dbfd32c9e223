//! The process that compiles: what the command `compile` does.
//!
//! It reads one component from standard input, writes its code to standard output and ends. It is
//! given no configuration and no secret, has no file open but its pipes once it reads the component,
//! and lives no longer than the process that started it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use crate::engine::code::CodeSettings;

/// What a process that compiles is told on its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// The bytes of the component, which come on standard input.
    pub component_bytes: u64,
    /// Bytes of memory it may take.
    pub memory_bytes: u64,
    /// Seconds it may compute, all threads together.
    pub cpu_seconds: u64,
    /// Whether the code counts fuel.
    pub fuel: bool,
}

/// How the process ends where not with code.
#[derive(Debug)]
enum Failure {
    Refused(String),
    OutOfMemory,
    Io(io::Error),
}

/// The exit status when the component is at fault; why is on standard error.
pub(super) const REFUSED: i32 = 10;
/// The exit status when the memory was not enough.
pub(super) const OUT_OF_MEMORY: i32 = 11;
/// Before what a refusal says, to tell it from whatever else may be on standard error.
pub(super) const REFUSAL: &str = "refused: ";

/// The longest explanation that is passed on: names in a component may be very long.
const MESSAGE_BYTES: usize = 4 << 10;
/// A little behind threads that run guests. Not far: on a machine that is always busy a compilation
/// must end before its time is up.
const NICENESS: i32 = 5;
/// How much more likely than others the kernel ends this process when the machine has no memory left:
/// rather a compilation than the server.
const OOM_SCORE: &str = "500";
/// Standard input, output and error. They are open, so nothing else can be.
const FILES: RawFd = 3;
/// Seconds of computing after the limit until the kernel ends this process without saying which limit
/// it was: the first signal ends it too.
const CPU_SECONDS_BEYOND: u64 = 5;

impl Task {
    /// The command that does it.
    pub const COMMAND: &str = "compile";

    /// The command line that says it, the name of the program left out.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![OsString::from(Self::COMMAND)];
        for (flag, value) in [
            ("--component-bytes", self.component_bytes),
            ("--memory-bytes", self.memory_bytes),
            ("--cpu-seconds", self.cpu_seconds),
        ] {
            arguments.push(flag.into());
            arguments.push(value.to_string().into());
        }
        if self.fuel {
            arguments.push("--fuel".into());
        }
        arguments
    }

    /// Does it. What this returns is the end of the process, whose limits are those of the task from
    /// now on.
    pub fn run(&self) -> ExitCode {
        let Err(failure) = self.work() else {
            return ExitCode::SUCCESS;
        };
        let (said, status) = match failure {
            Failure::Refused(message) => (format!("{REFUSAL}{message}"), REFUSED),
            Failure::OutOfMemory => (String::new(), OUT_OF_MEMORY),
            Failure::Io(error) => (error.to_string(), 1),
        };
        // Nobody listens any more: then nobody misses it.
        let _ = writeln!(io::stderr(), "{said}");
        ExitCode::from(u8::try_from(status).unwrap_or(1))
    }

    fn work(&self) -> Result<(), Failure> {
        self.confine().map_err(Failure::Io)?;
        let component = self.read_component()?;
        end_with_the_parent().map_err(Failure::of_a_thread)?;
        let code = wasmtime::Engine::new(&CodeSettings { fuel: self.fuel }.config())
            .and_then(|engine| engine.precompile_component(&component))
            .map_err(|error| Failure::of_the_compiler(&error))?;
        let mut out = io::stdout().lock();
        out.write_all(&code)
            .and_then(|()| out.flush())
            .map_err(Failure::Io)
    }

    /// Takes away from this process what compiling doesn't need.
    fn confine(&self) -> io::Result<()> {
        // Not everywhere, and no reason to fail.
        let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        close_inherited();
        nice(NICENESS)?;
        let cpu = self.cpu_seconds;
        for (resource, limit, beyond) in [
            (Resource::Core, 0, 0),
            (Resource::Fsize, 0, 0),
            (Resource::Nofile, u64::from(FILES.unsigned_abs()), 0),
            // Beyond, the signal is one that others send too.
            (Resource::Cpu, cpu, CPU_SECONDS_BEYOND),
            // What is written to, of the heap, stacks and maps of memory alike; address space that is only
            // reserved, as allocators like to do, doesn't count.
            (Resource::Data, self.memory_bytes, 0),
        ] {
            let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            let limits = Rlimit {
                current: Some(limit.min(most)),
                maximum: Some(limit.saturating_add(beyond).min(most)),
            };
            setrlimit(resource, limits)?;
        }
        Ok(())
    }

    fn read_component(&self) -> Result<Vec<u8>, Failure> {
        let length = usize::try_from(self.component_bytes).map_err(|_| Failure::OutOfMemory)?;
        let mut component = Vec::new();
        component
            .try_reserve_exact(length)
            .map_err(|_| Failure::OutOfMemory)?;
        io::stdin()
            .lock()
            .take(self.component_bytes)
            .read_to_end(&mut component)
            .map_err(Failure::Io)?;
        if component.len() < length {
            return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(component)
    }
}

impl Failure {
    /// There is nothing but memory that threads can lack here.
    fn of_a_thread(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Io(error),
        }
    }

    fn of_the_compiler(error: &wasmtime::Error) -> Self {
        let no_memory = error.chain().any(|cause| {
            cause.is::<wasmtime::OutOfMemory>()
                || cause.downcast_ref() == Some(&Errno::NOMEM)
                || cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
        });
        if no_memory {
            Self::OutOfMemory
        } else {
            Self::Refused(refusal(error))
        }
    }
}

/// What the compiler has against a component, for its author: the whole chain on one line, as Wasmtime
/// puts the details behind the first colon.
pub(in crate::engine) fn refusal(error: &wasmtime::Error) -> String {
    let mut message = format!("{error:#}").replace(['\n', '\r'], " ");
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    message
}

/// Closes what this process was given besides standard input, output and error: the runner opens
/// nothing that would stay open here, but whoever started the runner may have.
fn close_inherited() {
    let folder = Path::new(if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    });
    // Not everywhere, and no reason to fail.
    let Ok(open) = fs::read_dir(folder) else {
        return;
    };
    let numbers: Vec<RawFd> = open
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= FILES)
        .collect();
    for number in numbers {
        // The folder was among them, and isn't open any more.
        if fs::symlink_metadata(folder.join(number.to_string())).is_err() {
            continue;
        }
        // SAFETY: it is open, and nobody's: this process has opened nothing yet that stays open, so it
        // was inherited.
        #[expect(unsafe_code, reason = "nothing safe closes what nobody owns")]
        let inherited = unsafe { OwnedFd::from_raw_fd(number) };
        drop(inherited);
    }
}

/// Ends this process as soon as the one that started it is gone, however it went: standard input, of
/// which nothing more is to come, then ends. The kernel's signal for the purpose goes by the thread
/// that started the process, and threads of an async runtime come and go.
fn end_with_the_parent() -> io::Result<()> {
    thread::Builder::new()
        .name("parent".to_owned())
        .spawn(|| {
            // An error means the same.
            let _ = io::stdin().lock().read(&mut [0]);
            std::process::exit(1);
        })
        .map(drop)
}
