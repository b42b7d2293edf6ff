// What GCC's headers ask of the system's libraries beyond those of manylinux_2_28, which torch's own
// wheels are built for; defined here, so that one library loads wherever torch does. The test of the
// wheel names what a newer compiler asks for beside these (tests/test_import.py).
//
// Linking libstdc++ statically would not do: that of a newer system asks for a newer glibc, and an
// exception thrown by one copy of it would be caught by the other.

#include <new>
#include <sstream>

#if defined(__GLIBCXX__) && defined(__linux__)

// glibc 2.32: whether shared_ptr may count without atomic operations. It may not.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

namespace std {
// GLIBCXX_3.4.29: what std::allocator calls for a size that no memory has.
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
// GLIBCXX_3.4.29 and 3.4.26: streams, of which torch's headers make error messages.
template basic_stringstream<char>::basic_stringstream();
template basic_ostringstream<char>::basic_ostringstream();
template string basic_stringbuf<char>::str() const&;
template string basic_stringbuf<char>::str() &&;
}  // namespace std

#endif
