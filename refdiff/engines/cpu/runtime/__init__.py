"""What the operations of the cpu engine run on: it knows no model, no training and no configuration.

context                 what is so for the calling thread: threads, shards, allocator, gradient buffer, capture
memory                  arrays for results, working space and gradients; `blocks` and `arena` own the memory
thread_pool, blas       threads of our own, and the matrix library kept at one
profiler                the decorator of every operation, and where the time goes
captured                captures a function's NumPy calls and replays them: `traced_array`, `capture`
shards, data_parallel   a batch in parts, split between processes: `worker_process`, `shared_memory`
fork                    what a child process of fork begins anew
"""
