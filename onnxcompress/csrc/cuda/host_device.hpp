// OC_HOST_DEVICE marks a function that host and device code call; host compilers that know no CUDA see nothing.
#pragma once

#ifdef __CUDACC__
#define OC_HOST_DEVICE __host__ __device__
#else
#define OC_HOST_DEVICE
#endif
