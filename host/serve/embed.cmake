# Writes files as a C table of bytes (host/serve/assets.h):
#   cmake -DOUT=<file.c> -P embed.cmake -- <file>...
set(files)
set(after FALSE)
foreach(i RANGE ${CMAKE_ARGC})
    if(after AND NOT "${CMAKE_ARGV${i}}" STREQUAL "")
        list(APPEND files "${CMAKE_ARGV${i}}")
    elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
        set(after TRUE)
    endif()
endforeach()

set(arrays)
set(table)
set(n 0)
foreach(file IN LISTS files)
    cmake_path(GET file FILENAME name)
    file(READ ${file} bytes HEX)
    file(SHA256 ${file} hash)
    string(SUBSTRING ${hash} 0 16 hash)
    string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    # An empty file would be an empty array.
    string(APPEND arrays "static const unsigned char file_${n}[] = {\n${bytes}0};\n\n")
    string(APPEND table "    {\"/${name}\", \"\\\"${hash}\\\"\", file_${n}, sizeof file_${n} - 1},\n")
    math(EXPR n "${n} + 1")
endforeach()

file(WRITE ${OUT} "#include \"host/serve/assets.h\"\n\n${arrays}const pl_asset pl_asset_table[] = {\n${table}};\n"
    "const size_t pl_asset_count = ${n};\n")
