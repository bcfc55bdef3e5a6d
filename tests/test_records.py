from stabletune.records import Measurement


def test_a_measurement_is_completed_by_what_only_another_of_its_step_has_read():
    reading = Measurement(step=3, loss=1.0, lr=0.1, sharpness_ratio=0.9, update_rms=0.5)
    glance = Measurement(step=3, loss=1.0, lr=0.1, update_rms=0.7, oscillation_energy=0.02)
    assert reading.completed_by(glance) == Measurement(
        step=3, loss=1.0, lr=0.1, sharpness_ratio=0.9, update_rms=0.5, oscillation_energy=0.02
    )
    assert reading.completed_by(None) is reading
