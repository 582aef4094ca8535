"""The second half of the cuda engine: the device and its memory, and what repeats a step of training or sampling there.

    device, cupy_device, dry_run, nvrtc, sources    what runs kernels, or only counts them
    memory, arena, context, bfloat16                where arrays live
    capture, captured_step, captured_sampler, flat_optimiser    a step that is captured once and replayed

The operations beside this folder stand on the first two lines; the third stands on the operations. Nothing here knows a
network, a configuration or a mathematical process.
"""
