"""What the operations of the CPU engine run on, and is none itself: nobody outside the engine and its trainer imports it.

context             what is so for the calling thread: threads, split, allocator, gradient buffer, capture
memory              arrays for results, working space and gradients; `blocks` and `arena` own the memory
thread_pool, blas   threads of our own, and the matrix library kept at one
profiler            the decorator of every operation, and where the time goes
traced_array, capture, captured     a function's NumPy calls, captured once and replayed
fork                what a child process of fork begins anew
"""
