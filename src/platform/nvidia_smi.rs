//! Power, memory and temperature of an NVIDIA GPU, from the program `nvidia-smi`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// One line of `nvidia-smi`. A value that the GPU does not report is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct GpuReading {
    /// In watts.
    pub(crate) power: Option<f64>,
    /// The memory that all processes use, in MiB.
    pub(crate) memory: Option<f64>,
    /// In °C.
    pub(crate) temperature: Option<f64>,
}

impl GpuReading {
    /// Parses `power, memory, temperature`. `None` if not one of them is a number: then this is an error message, or
    /// the GPU of a Jetson, which reports none of them.
    fn from_line(line: &str) -> Option<Self> {
        let mut values = line.split(',').map(|value| value.trim().parse::<f64>().ok());
        let mut next = || values.next().flatten();
        let reading = Self { power: next(), memory: next(), temperature: next() };
        (reading != Self::default()).then_some(reading)
    }
}

/// A running `nvidia-smi`, which reports ten times a second. It is stopped when this value is dropped.
#[derive(Debug)]
pub(crate) struct NvidiaSmi {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl NvidiaSmi {
    /// Starts `nvidia-smi` for a GPU, and passes each reading to `on_reading` on a thread. `None` if the program is not
    /// installed.
    pub(crate) fn start(gpu: u64, on_reading: impl Fn(GpuReading) + Send + 'static) -> Option<Self> {
        let mut child = Command::new("nvidia-smi")
            .arg("--query-gpu=power.draw,memory.used,temperature.gpu")
            .arg("--format=csv,noheader,nounits")
            .args(["--loop-ms=100", &format!("--id={gpu}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
        let read = move || lines.filter_map(|line| GpuReading::from_line(&line)).for_each(on_reading);
        let reader = std::thread::Builder::new().name("nvidia-smi".to_owned()).spawn(read).ok();
        Some(Self { child, reader })
    }
}

impl Drop for NvidiaSmi {
    fn drop(&mut self) {
        // Both fail only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_values_that_the_gpu_reports() {
        let reading = |power, memory, temperature| Some(GpuReading { power, memory, temperature });
        assert_eq!(GpuReading::from_line("71.52, 4096, 38"), reading(Some(71.52), Some(4096.0), Some(38.0)));
        assert_eq!(GpuReading::from_line("[N/A], 512, 40"), reading(None, Some(512.0), Some(40.0)));
        assert_eq!(GpuReading::from_line("[N/A], [N/A], [N/A]"), None);
        assert_eq!(GpuReading::from_line("No devices were found"), None);
    }
}
