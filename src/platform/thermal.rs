//! Temperatures and cooling devices from sysfs, and the throttle that pauses jobs.

use super::{Platform, file_name};

/// The temperatures and the throttling of a board.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ThermalStatus {
    /// The thermal zones: name and temperature in °C.
    pub(crate) zones: Vec<(String, f64)>,
    /// The active cooling devices other than fans; they slow the board down.
    pub(crate) throttles: Vec<String>,
}

impl ThermalStatus {
    /// Returns the highest temperature in °C, if there is a zone.
    pub(crate) fn hottest(&self) -> Option<f64> {
        self.zones.iter().map(|(_, celsius)| *celsius).reduce(f64::max)
    }
}

const THERMAL: &str = "/sys/class/thermal";

impl Platform {
    /// Reads the temperatures. Skips a zone that can't be read, for example because its sensor is off.
    pub(crate) fn thermal_status(&self) -> ThermalStatus {
        let mut status = ThermalStatus { zones: Vec::new(), throttles: Vec::new() };
        for entry in self.entries(THERMAL) {
            let name = file_name(&entry);
            let read = |file: &str| self.text(&format!("{THERMAL}/{name}/{file}"));
            let number = |file: &str| read(file)?.parse::<f64>().ok();
            let kind = read("type").unwrap_or_else(|| name.clone());
            if name.starts_with("thermal_zone") {
                // Millidegrees. A Jetson reports -256 °C for a zone without a sensor.
                let celsius = number("temp").map(|millis| millis / 1000.0).filter(|c| *c > -100.0);
                status.zones.extend(celsius.map(|celsius| (kind, celsius)));
            } else if name.starts_with("cooling_device")
                && !kind.contains("fan")
                && number("cur_state").is_some_and(|state| state > 0.0)
            {
                status.throttles.push(kind);
            }
        }
        status
    }
}

/// Decides whether new jobs wait because the board is too hot.
#[derive(Debug)]
pub(crate) struct ThermalThrottle {
    platform: Platform,
    /// In °C; `None` never pauses.
    pause_above: Option<f64>,
    pausing: bool,
}

/// How far the temperature must fall below the limit before jobs start again.
const HYSTERESIS_C: f64 = 5.0;

impl ThermalThrottle {
    /// Pauses at `pause_above` °C.
    pub(crate) fn new(platform: Platform, pause_above: Option<f64>) -> Self {
        Self { platform, pause_above, pausing: false }
    }

    /// Returns whether new jobs must wait, and logs a change.
    pub(crate) fn should_pause(&mut self) -> bool {
        let (Some(limit), Some(celsius)) =
            (self.pause_above, self.pause_above.and(self.platform.thermal_status().hottest()))
        else {
            return false;
        };
        let pausing = celsius >= if self.pausing { limit - HYSTERESIS_C } else { limit };
        if pausing != self.pausing {
            let change = if pausing { "new jobs wait until it is cooler" } else { "new jobs start again" };
            log::warn!("the board is at {celsius:.0} °C, [board] pause_above_c is {limit:.0}: {change}");
        }
        self.pausing = pausing;
        pausing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(root: &std::path::Path, file: &str, value: &str) {
        let path = root.join("sys/class/thermal").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }

    #[test]
    fn zones_without_a_sensor_and_inactive_cooling_devices_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        for (zone, (kind, temperature)) in
            [("CPU-therm", "51500\n"), ("GPU-therm", "60250\n"), ("CV0-therm", "-256000\n")]
                .iter()
                .enumerate()
        {
            set(root.path(), &format!("thermal_zone{zone}/type"), &format!("{kind}\n"));
            set(root.path(), &format!("thermal_zone{zone}/temp"), temperature);
        }
        for (device, (kind, state)) in
            [("pwm-fan", "3"), ("cpufreq-cpu0", "0"), ("gpu", "2")].iter().enumerate()
        {
            set(root.path(), &format!("cooling_device{device}/type"), kind);
            set(root.path(), &format!("cooling_device{device}/cur_state"), state);
        }
        let status = Platform::new(root.path()).thermal_status();
        assert_eq!(status.zones, [("CPU-therm".to_owned(), 51.5), ("GPU-therm".to_owned(), 60.25)]);
        assert_eq!(status.throttles, ["gpu"]);
        assert_eq!(status.hottest(), Some(60.25));
        assert_eq!(Platform::new("/nonexistent").thermal_status().hottest(), None);
    }

    #[test]
    fn jobs_wait_at_the_limit_until_it_is_five_degrees_cooler() {
        let root = tempfile::tempdir().unwrap();
        let at = |celsius: u32| set(root.path(), "thermal_zone0/temp", &format!("{celsius}000"));
        let mut throttle = ThermalThrottle::new(Platform::new(root.path()), Some(80.0));
        let mut seen = Vec::new();
        for celsius in [79, 80, 79, 75, 74, 79] {
            at(celsius);
            seen.push(throttle.should_pause());
        }
        assert_eq!(seen, [false, true, true, true, false, false]);
        at(99);
        assert!(!ThermalThrottle::new(Platform::new(root.path()), None).should_pause());
    }
}
