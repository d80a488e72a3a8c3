// A libcob.so that does nothing: for tests of `cob run` itself.
extern "C" const int cob_shim_double = 1;
