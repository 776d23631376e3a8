//! A board's thermal sensor, as files.

use std::path::Path;

/// Let the board under this root be so warm.
pub fn heat(board: &Path, celsius: u32) {
    let zone = board.join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).unwrap();
    std::fs::write(zone.join("type"), "gpu-thermal\n").unwrap();
    std::fs::write(zone.join("temp"), format!("{celsius}000\n")).unwrap();
}

/// The configuration of a daemon that waits while that board is warmer than 80 °C.
pub fn cautious(board: &Path) -> String {
    format!("[board]\nroot = {:?}\npause_above_c = 80", board.display().to_string())
}
