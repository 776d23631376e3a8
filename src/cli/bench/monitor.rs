//! Reads the sensors of the machine while something runs.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::figures::{MemoryFigures, Readings, mebibytes, rounded};
use crate::platform::{GpuReading, NvidiaSmi, Platform, PowerRail, input_power};

/// How often the sensors are read.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long `nvidia-smi` may take until its first reading.
const FIRST_READING_TIMEOUT: Duration = Duration::from_secs(5);
/// What `nvidia-smi` measures the power of.
const GPU_POWER: &str = "nvidia-smi, the GPU alone";
/// The GPU's name among the thermal zones.
const GPU_ZONE: &str = "gpu";

/// Reads the sensors until it is dropped.
pub(super) struct Monitor {
    sampler: Sampler,
    /// The memory before anything was loaded.
    available_before: Option<u64>,
    gpu_before: Option<f64>,
    _nvidia_smi: Option<NvidiaSmi>,
    /// Closing it ends the thread. `None` only while the thread is being joined.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Adds readings to those of the current phase.
#[derive(Clone)]
struct Sampler {
    platform: Platform,
    totals: Arc<Mutex<Totals>>,
}

/// The readings of a phase, and the extremes of the whole run.
#[derive(Debug, Default)]
struct Totals {
    phase: Phase,
    latest_gpu: Option<GpuReading>,
    available_min: Option<u64>,
    gpu_peak: Option<f64>,
}

#[derive(Debug, Default)]
struct Phase {
    /// The power of the board, and what its sensors measure.
    board_power: Option<(String, Mean)>,
    gpu_power: Option<Mean>,
    rails: BTreeMap<String, Mean>,
    gpu_memory: Option<f64>,
    temperatures: BTreeMap<String, f64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Monitor {
    /// Starts reading the sensors of a machine and of its GPU with this number.
    pub(super) fn start(platform: &Platform, gpu: u64) -> Self {
        let sampler = Sampler { platform: platform.clone(), totals: Arc::default() };
        let nvidia_smi = start_nvidia_smi(&sampler, gpu);
        let (stop, stopped) = sync_channel(1);
        let thread = {
            let sampler = sampler.clone();
            std::thread::Builder::new().name("sensors".to_owned()).spawn(move || sampler.run(&stopped))
        };
        let gpu_before = sampler.lock().latest_gpu.and_then(|reading| reading.memory);
        Self {
            available_before: platform.available_memory(),
            gpu_before,
            sampler,
            _nvidia_smi: nvidia_smi,
            stop: Some(stop),
            thread: thread.inspect_err(|error| log::warn!("cannot read the sensors: {error}")).ok(),
        }
    }

    /// Does some work, and returns what the sensors measured meanwhile.
    pub(super) fn during<R, E>(&self, work: impl FnOnce() -> Result<R, E>) -> Result<(R, Readings), E> {
        self.sampler.begin();
        let result = work()?;
        self.sampler.read();
        Ok((result, self.sampler.lock().phase.readings()))
    }

    /// Returns the memory of the whole run so far.
    pub(super) fn memory(&self) -> MemoryFigures {
        let totals = self.sampler.lock();
        MemoryFigures {
            resident_peak_mib: Platform::default().resident_memory().map(|memory| mebibytes(memory.peak)),
            gpu_before_mib: self.gpu_before,
            gpu_peak_mib: totals.gpu_peak,
            available_before_mib: self.available_before.map(mebibytes),
            available_min_mib: totals.available_min.map(mebibytes),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts `nvidia-smi`, and waits for its first reading. `None` if it is not installed or knows no such GPU.
fn start_nvidia_smi(sampler: &Sampler, gpu: u64) -> Option<NvidiaSmi> {
    let (first, has_begun) = sync_channel(1);
    let sampler = sampler.clone();
    let nvidia_smi = NvidiaSmi::start(gpu, move |reading| {
        sampler.lock().add_gpu(reading);
        // The queue is full or closed once the first reading was seen.
        let _ = first.try_send(());
    })?;
    has_begun.recv_timeout(FIRST_READING_TIMEOUT).is_ok().then_some(nvidia_smi)
}

impl Sampler {
    fn run(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            self.read();
        }
    }

    /// Begins a phase with one reading of each sensor.
    fn begin(&self) {
        {
            let mut totals = self.lock();
            totals.phase = Phase::default();
            if let Some(reading) = totals.latest_gpu {
                totals.add_gpu(reading);
            }
        }
        self.read();
    }

    fn read(&self) {
        let (rails, thermal) = (self.platform.power_rails(), self.platform.thermal_status());
        let available = self.platform.available_memory();
        let mut totals = self.lock();
        totals.available_min = smallest(totals.available_min, available);
        totals.phase.add_rails(&rails);
        for (zone, celsius) in thermal.zones {
            totals.phase.add_temperature(zone, celsius);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn add_gpu(&mut self, reading: GpuReading) {
        self.latest_gpu = Some(reading);
        self.gpu_peak = largest(self.gpu_peak, reading.memory);
        self.phase.gpu_memory = largest(self.phase.gpu_memory, reading.memory);
        if let Some(watts) = reading.power {
            self.phase.gpu_power.get_or_insert_default().add(watts);
        }
        if let Some(celsius) = reading.temperature {
            self.phase.add_temperature(GPU_ZONE.to_owned(), celsius);
        }
    }
}

impl Phase {
    fn add_rails(&mut self, rails: &[PowerRail]) {
        for rail in rails {
            self.rails.entry(rail.label.clone()).or_default().add(rail.watts);
        }
        if let Some((watts, source)) = input_power(rails) {
            self.board_power.get_or_insert_with(|| (source, Mean::default())).1.add(watts);
        }
    }

    fn add_temperature(&mut self, zone: String, celsius: f64) {
        let highest = self.temperatures.entry(zone).or_insert(celsius);
        *highest = highest.max(celsius);
    }

    /// Returns the means and the extremes. The board's own sensors are preferred to the GPU's: they measure more.
    fn readings(&self) -> Readings {
        let gpu_power = || self.gpu_power.map(|watts| (GPU_POWER.to_owned(), watts));
        let power = self.board_power.clone().or_else(gpu_power);
        Readings {
            power_w: power.as_ref().map(|(_, watts)| watts.value()),
            power_source: power.map(|(source, _)| source),
            rails_w: self.rails.iter().map(|(label, watts)| (label.clone(), watts.value())).collect(),
            gpu_memory_mib: self.gpu_memory,
            temperatures_c: self.temperatures.clone(),
        }
    }
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Returns the mean, to a thousandth.
    fn value(self) -> f64 {
        rounded(self.sum / self.count.max(1) as f64, 3)
    }
}

fn largest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

fn smallest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_the_means_and_the_extremes_of_its_readings() {
        let mut totals = Totals::default();
        let gpu = |watts, mib, celsius| GpuReading {
            power: Some(watts),
            memory: Some(mib),
            temperature: Some(celsius),
        };
        totals.add_gpu(gpu(100.0, 900.0, 40.0));
        totals.add_gpu(gpu(200.0, 700.0, 50.0));
        let readings = totals.phase.readings();
        assert_eq!(readings.power_source.as_deref(), Some("nvidia-smi, the GPU alone"));
        assert_eq!((readings.power_w, readings.gpu_memory_mib), (Some(150.0), Some(900.0)));
        assert_eq!(readings.temperatures_c, BTreeMap::from([("gpu".to_owned(), 50.0)]));

        let rail = |watts| PowerRail { label: "VDD_IN".to_owned(), watts };
        totals.phase.add_rails(&[rail(8.0)]);
        totals.phase.add_rails(&[rail(9.0)]);
        let readings = totals.phase.readings();
        assert_eq!(readings.power_source.as_deref(), Some("INA3221, rail VDD_IN"));
        assert_eq!(readings.power_w, Some(8.5));
        assert_eq!(readings.rails_w, BTreeMap::from([("VDD_IN".to_owned(), 8.5)]));

        totals.phase = Phase::default();
        assert_eq!(totals.phase.readings(), Readings::default());
        assert_eq!(totals.gpu_peak, Some(900.0));
    }
}
