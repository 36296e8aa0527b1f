/* The formats of strings as regular expressions. Each accepts only valid ones, some not all: years have four digits and
 * do not begin with 0, there are no leap seconds, a host has at most six labels of up to 40 characters, an address of
 * version 6 does not hold one of version 4. */
#include <string.h>

#include "host/grammar/json_schema_parts.h"

#define LEAP_YEAR "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
#define DATE                                                                                                           \
    "([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"                     \
    "02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP_YEAR "-02-29)"
#define HOUR "([01][0-9]|2[0-3])"
#define TIME HOUR ":[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]" HOUR ":[0-5][0-9])"
#define COUNT "[0-9]{1,9}"
#define SECONDS COUNT "S"
#define MINUTES COUNT "M(" SECONDS ")?"
#define HOURS COUNT "H(" MINUTES ")?"
#define DAYS COUNT "D"
#define MONTHS COUNT "M(" DAYS ")?"
#define YEARS COUNT "Y(" MONTHS ")?"
#define DURATION_TIME "T(" HOURS "|" MINUTES "|" SECONDS ")"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,38}[A-Za-z0-9])?"
#define HOST LABEL "(\\." LABEL "){0,5}"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define PAIR "[0-9A-Fa-f]{1,4}"
#define IPV6                                                                                                           \
    "((" PAIR ":){7}" PAIR "|(" PAIR ":){1,7}:|(" PAIR ":){1,6}:" PAIR "|(" PAIR ":){1,5}(:" PAIR "){1,2}|(" PAIR      \
    ":){1,4}(:" PAIR "){1,3}|(" PAIR ":){1,3}(:" PAIR "){1,4}|(" PAIR ":){1,2}(:" PAIR "){1,5}|" PAIR ":(:" PAIR       \
    "){1,6}|:(:" PAIR "){1,7}|::)"
#define HEX4 "[0-9A-Fa-f]{4}"
#define PATH_CHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define QUERY "(" PATH_CHAR "|[/?])*"

const char *pl_schema_format(const char *name)
{
    static const struct {
        const char *name, *expression;
    } formats[] = {
        {"date-time", "^" DATE "T" TIME "$"},
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"duration", "^P(" COUNT "W|(" YEARS "|" MONTHS "|" DAYS ")(" DURATION_TIME ")?|" DURATION_TIME ")$"},
        {"email", "^" ATOM "(\\." ATOM "){0,2}@" HOST "$"},
        {"hostname", "^" HOST "$"},
        {"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
        {"ipv6", "^" IPV6 "$"},
        {"uuid", "^[0-9A-Fa-f]{8}-" HEX4 "-" HEX4 "-" HEX4 "-[0-9A-Fa-f]{12}$"},
        {"uri", "^[A-Za-z][A-Za-z0-9+.-]{0,30}:(//" HOST "(:[0-9]{1,4})?(/" PATH_CHAR "*)*|/?" PATH_CHAR "+(/" PATH_CHAR
                "*)*)(\\?" QUERY ")?(#" QUERY ")?$"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return formats[i].expression;
    return NULL;
}
