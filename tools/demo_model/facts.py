"""The tables of the closed world: everything the demo model is meant to know by heart."""
from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    """`key: value` lines, or several `key: value` entries separated by semicolons."""
    entries = [e.strip() for line in text.strip().splitlines() for e in line.split(";") if e.strip()]
    return {k.strip(): v.strip() for k, v in (e.split(":", 1) for e in entries)}


_EUROPE = """
France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; Austria: Vienna; Belgium: Brussels
Netherlands: Amsterdam; Denmark: Copenhagen; Norway: Oslo; Sweden: Stockholm; Finland: Helsinki; Iceland: Reykjavik
Ireland: Dublin; Poland: Warsaw; Hungary: Budapest; Romania: Bucharest; Bulgaria: Sofia; Greece: Athens; Albania: Tirana
Croatia: Zagreb; Serbia: Belgrade; Slovenia: Ljubljana; Slovakia: Bratislava; Ukraine: Kyiv; Belarus: Minsk; Russia: Moscow
Estonia: Tallinn; Latvia: Riga; Lithuania: Vilnius; Moldova: Chisinau; Malta: Valletta; Switzerland: Bern; Monaco: Monaco
Andorra: Andorra la Vella; Montenegro: Podgorica; Luxembourg: Luxembourg; Liechtenstein: Vaduz; Cyprus: Nicosia
"""
_ASIA = """
China: Beijing; Japan: Tokyo; India: New Delhi; Thailand: Bangkok; Vietnam: Hanoi; Indonesia: Jakarta; Malaysia: Kuala Lumpur
Singapore: Singapore; Mongolia: Ulaanbaatar; Nepal: Kathmandu; Pakistan: Islamabad; Bangladesh: Dhaka; Iran: Tehran
Iraq: Baghdad; Jordan: Amman; Lebanon: Beirut; Syria: Damascus; Qatar: Doha; Kuwait: Kuwait City; Oman: Muscat; Yemen: Sanaa
Bahrain: Manama; Turkey: Ankara; Georgia: Tbilisi; Armenia: Yerevan; Azerbaijan: Baku; Kazakhstan: Astana
Uzbekistan: Tashkent; Cambodia: Phnom Penh; Laos: Vientiane; Bhutan: Thimphu; Afghanistan: Kabul; Taiwan: Taipei
Philippines: Manila; South Korea: Seoul; North Korea: Pyongyang; Maldives: Male; Saudi Arabia: Riyadh
"""
_AFRICA = """
Egypt: Cairo; Morocco: Rabat; Algeria: Algiers; Tunisia: Tunis; Libya: Tripoli; Sudan: Khartoum; Ethiopia: Addis Ababa
Kenya: Nairobi; Uganda: Kampala; Tanzania: Dodoma; Rwanda: Kigali; Ghana: Accra; Nigeria: Abuja; Senegal: Dakar; Mali: Bamako
Niger: Niamey; Chad: N'Djamena; Angola: Luanda; Zambia: Lusaka; Zimbabwe: Harare; Namibia: Windhoek; Botswana: Gaborone
Mozambique: Maputo; Madagascar: Antananarivo; Somalia: Mogadishu; Eritrea: Asmara; Gabon: Libreville; Liberia: Monrovia
"""
_AMERICA_N = """
Canada: Ottawa; Mexico: Mexico City; Cuba: Havana; Jamaica: Kingston; Haiti: Port-au-Prince; Panama: Panama City
Guatemala: Guatemala City; Honduras: Tegucigalpa; Nicaragua: Managua; Costa Rica: San Jose; Bahamas: Nassau
United States: Washington; Barbados: Bridgetown
"""
_AMERICA_S = """
Brazil: Brasilia; Argentina: Buenos Aires; Chile: Santiago; Peru: Lima; Colombia: Bogota; Venezuela: Caracas; Ecuador: Quito
Bolivia: Sucre; Paraguay: Asuncion; Uruguay: Montevideo; Guyana: Georgetown; Suriname: Paramaribo
"""
_OCEANIA = "Australia: Canberra; New Zealand: Wellington; Fiji: Suva; Samoa: Apia; Tonga: Nuku'alofa"

_REGIONS = {"Europe": _EUROPE, "Asia": _ASIA, "Africa": _AFRICA, "North America": _AMERICA_N, "South America": _AMERICA_S,
            "Oceania": _OCEANIA}
CAPITALS = {country: city for table in _REGIONS.values() for country, city in _pairs(table).items()}
CAPITALS["United Kingdom"] = "London"
CONTINENTS = {country: region for region, table in _REGIONS.items() for country in _pairs(table)}
CONTINENTS["United Kingdom"] = "Europe"
FAMOUS = set("""France Germany Italy Spain Japan China India Russia Canada Egypt Greece Norway Sweden Poland Austria Portugal Ireland
Turkey Brazil Peru Cuba Kenya Denmark Belgium""".split())
_WITH_THE = {"Netherlands", "United States", "United Kingdom", "Philippines", "Bahamas", "Maldives"}


def named(country: str) -> str:
    """The country as it stands inside a sentence."""
    return "the " + country if country in _WITH_THE else country


DEFINITIONS = _pairs("""
apple: a round fruit that grows on trees; bread: a food baked from flour and water; water: a clear liquid that we drink
milk: a white drink that comes from cows; cheese: a food made from milk; honey: a sweet food made by bees
sugar: a sweet substance used in food; salt: a white mineral that gives taste to food; rice: a grain that grows in wet fields
soup: a warm liquid food; cake: a sweet baked food; tea: a hot drink made from leaves; coffee: a hot drink made from roasted beans
dog: an animal that is a friend of people; cat: a small animal that catches mice; horse: a large animal that people ride
cow: a farm animal that gives milk; sheep: a farm animal that gives wool; pig: a farm animal with a flat nose
bird: an animal with wings and feathers; fish: an animal that lives in water; bee: an insect that makes honey
spider: a small animal with eight legs; snake: a long animal without legs; whale: the largest animal in the sea
elephant: a very large animal with a trunk; lion: a large wild cat; frog: a small green animal that jumps
mouse: a small animal with a long tail; butterfly: an insect with coloured wings; owl: a bird that hunts at night
tree: a tall plant with a trunk; flower: the coloured part of a plant; grass: a low green plant that covers the ground
leaf: the flat green part of a plant; seed: the small thing that a plant grows from; forest: a large area of trees
garden: a piece of land for plants; farm: a place where food is grown; field: an open area of land
river: water that flows to the sea; lake: an area of water with land around it; sea: a very large area of salt water
island: land with water all around it; mountain: a very high hill; valley: low land between hills; desert: a dry area with little rain
beach: the sandy land beside the sea; volcano: a mountain that can throw out fire; cave: a hollow place in rock
sun: the star that gives us light; moon: the body that goes around the Earth; star: a ball of hot gas in space
planet: a large body that goes around a star; sky: the space above the Earth; cloud: many small drops of water in the air
rain: water that falls from clouds; snow: soft white ice that falls from clouds; wind: air that moves; ice: frozen water
storm: bad weather with strong wind; rainbow: an arch of colours in the sky; fire: heat and light from something burning
house: a building where people live; door: the part of a house that you open to go in; window: a glass opening in a wall
roof: the top cover of a building; kitchen: a room for cooking; garage: a building for a car; bridge: a way built over water
road: a way for cars; tower: a tall narrow building; castle: a large old building with strong walls; school: a place where children learn
hospital: a place where ill people get care; library: a place with many books; museum: a place that shows old or rare things
market: a place where people buy and sell; station: a place where trains stop; airport: a place where planes land
car: a vehicle with four wheels; train: a vehicle that runs on rails; bicycle: a vehicle with two wheels
boat: a small vehicle for water; ship: a large boat; plane: a vehicle that flies; bus: a large vehicle for many people
table: a piece of furniture with a flat top; chair: a seat for one person; bed: a piece of furniture for sleeping
lamp: a thing that gives light; clock: a thing that shows the time; mirror: a glass in which you see yourself
key: a small tool that opens a lock; knife: a tool for cutting; spoon: a tool for eating soup; bottle: a container for liquids
hammer: a tool for hitting nails; ladder: a tool for climbing up; rope: a strong thick string; umbrella: a thing that keeps off the rain
book: a set of printed pages; letter: a written message to someone; newspaper: printed pages with the news; map: a picture of an area of land
pen: a tool for writing with ink; paper: a thin sheet for writing on; school bag: a bag for books; money: what we use to pay for things
hat: a thing to wear on the head; coat: warm clothes for outside; shoe: a thing to wear on the foot; glove: a thing to wear on the hand
doctor: a person who treats ill people; teacher: a person who helps others to learn; farmer: a person who grows food
baker: a person who makes bread; pilot: a person who flies planes; cook: a person who makes meals; nurse: a person who cares for ill people
writer: a person who writes books; painter: a person who paints pictures; judge: a person who decides in a court
king: a man who rules a country; friend: a person you know and like; neighbour: a person who lives near you; child: a young person
music: sounds arranged in a pleasant way; song: words set to music; piano: an instrument with black and white keys
guitar: an instrument with six strings; drum: an instrument that you hit; dance: moving the body to music; game: something you play for fun
football: a game played with a ball and the feet; chess: a board game for two players; holiday: time when you do not work
winter: the coldest season; summer: the warmest season; spring: the season when plants begin to grow; autumn: the season when leaves fall
morning: the early part of the day; night: the dark part of the day; week: a period of seven days; century: a period of one hundred years
heart: the organ that pumps blood; brain: the organ that thinks; hand: the part of the body at the end of the arm; eye: the organ that sees
ear: the organ that hears; bone: a hard part inside the body; blood: the red liquid in the body; skin: the outer cover of the body
gold: a yellow metal of high value; iron: a strong common metal; glass: a hard clear material; wood: the material that trees are made of
wool: the soft hair of sheep; oil: a thick liquid that can burn; stone: a small piece of rock; sand: very small grains of rock
computer: a machine that runs programs; program: a list of instructions for a computer; keyboard: a set of keys for typing
screen: the part of a computer that shows pictures; file: a named set of data on a disk; folder: a named group of files
disk: a device that stores data; memory: the part of a computer that holds data in use; network: a group of connected computers
internet: the network that connects computers all over the world; browser: a program that shows web pages
server: a computer that answers requests; password: a secret word that protects an account; byte: a group of eight bits
bit: a value that is either 0 or 1; kernel: a small program that runs on a graphics card; compiler: a program that turns source code into machine code
bug: a mistake in a program; algorithm: a list of steps that solves a problem; loop: code that repeats; variable: a named value in a program
function: a named piece of code; database: an organised store of data; cache: fast memory that keeps recent data
processor: the chip that carries out instructions; robot: a machine that can do tasks; camera: a device that takes pictures
telephone: a device for talking over a distance; battery: a device that stores electric energy; engine: a machine that turns fuel into motion
satellite: a machine that goes around the Earth; telescope: a device for looking at far things; microscope: a device for looking at very small things
token: a piece of text that a language model reads or writes; tokenizer: a program that cuts text into tokens
neuron: a cell that carries signals in the brain; atom: a very small part of matter; energy: the power to do work
gravity: the force that pulls things to the ground; light: energy that we can see; sound: a wave that we can hear
temperature: a measure of how hot something is; speed: a measure of how fast something moves; triangle: a shape with three sides
square: a shape with four equal sides; circle: a perfectly round shape; number: a value that we count with
""")

OPPOSITES = _pairs("""
hot: cold; big: small; fast: slow; high: low; long: short; old: young; new: used; good: bad; happy: sad; rich: poor
hard: soft; light: dark; open: closed; full: empty; wet: dry; clean: dirty; early: late; near: far; left: right; up: down
day: night; black: white; strong: weak; thick: thin; wide: narrow; deep: shallow; loud: quiet; easy: difficult; first: last
inside: outside; true: false; always: never; begin: end; buy: sell; give: take; love: hate; win: lose; push: pull; sweet: sour
heavy: weightless; brave: afraid; smooth: rough; sharp: blunt; cheap: expensive; safe: dangerous; summer: winter; front: back
above: below; before: after; arrive: leave; remember: forget; question: answer; laugh: cry; polite: rude; asleep: awake
""")

THING_COLOURS = _pairs("""
the sky: blue; grass: green; snow: white; coal: black; blood: red; a lemon: yellow; a banana: yellow; a carrot: orange
a tomato: red; milk: white; the sea: blue; a pumpkin: orange; a cucumber: green; a strawberry: red; chocolate: brown
an elephant: grey; a flamingo: pink; gold: yellow; a frog: green; a plum: purple; a ripe cherry: red; sand: yellow
""")

SOUNDS = _pairs("""
dog: woof; cat: meow; cow: moo; sheep: baa; pig: oink; horse: neigh; duck: quack; rooster: cock-a-doodle-doo; frog: ribbit
lion: roar; bee: buzz; snake: hiss; owl: hoot; mouse: squeak; bird: tweet; wolf: howl; donkey: hee-haw; hen: cluck; goat: bleat
turkey: gobble
""")

PLURALS = _pairs("""
apple: apples; dog: dogs; cat: cats; house: houses; book: books; car: cars; tree: trees; bird: birds; box: boxes; bus: buses
church: churches; dish: dishes; fox: foxes; glass: glasses; watch: watches; city: cities; baby: babies; lady: ladies
story: stories; country: countries; leaf: leaves; knife: knives; wife: wives; life: lives; wolf: wolves; shelf: shelves
man: men; woman: women; child: children; foot: feet; tooth: teeth; goose: geese; mouse: mice; person: people; ox: oxen
sheep: sheep; fish: fish; deer: deer; potato: potatoes; tomato: tomatoes; hero: heroes; piano: pianos; photo: photos
key: keys; day: days; boy: boys; toy: toys; table: tables; chair: chairs; flower: flowers; river: rivers; star: stars
""")

UNITS = [  # (question core, answer sentence, short answer)
    ("seconds|a minute", "60"), ("minutes|an hour", "60"), ("hours|a day", "24"), ("days|a week", "7"),
    ("months|a year", "12"), ("weeks|a year", "52"), ("days|a year", "365"), ("years|a century", "100"),
    ("years|a decade", "10"), ("centimetres|a metre", "100"), ("metres|a kilometre", "1000"), ("grams|a kilogram", "1000"),
    ("millimetres|a centimetre", "10"), ("kilograms|a tonne", "1000"), ("millilitres|a litre", "1000"), ("inches|a foot", "12"),
    ("feet|a yard", "3"), ("bits|a byte", "8"), ("bytes|a kibibyte", "1024"), ("letters|the alphabet", "26"),
    ("eggs|a dozen", "12"), ("sides|a triangle", "3"), ("sides|a square", "4"), ("players|a football team", "11"),
    ("strings|a guitar", "6"), ("days|a leap year", "366"), ("seasons|a year", "4"), ("cents|a euro", "100"),
    ("degrees|a circle", "360"), ("planets|the solar system", "8"), ("wheels|a set of car wheels", "4"),
]

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = dict(zip(MONTHS, "31 28 31 30 31 30 31 31 30 31 30 31".split()))

NAMES = """Anna Tom Maria Peter Lucy John Sara Paul Emma David Nina Mark Julia Simon Laura Felix Clara Oscar Alice Henry Eva
Martin Sofia Daniel Ida Robert Hannah Max Rosa Victor Ella George Lena Hugo Mia Arthur Nora Frank Olga Leo Greta Samuel Irene
Walter Zoe Thomas Vera Adam Ruth Ben Marta Ivan Amir Fatima Kenji Yuki Ravi Priya Carlos Elena Pablo Lucia Chen Mei Omar Leila
Jonas Astrid Erik Freya Sven Ingrid Luca Giulia Marco Bianca Pierre Camille Louis Margot Niko Katya Boris Dana Tariq Aisha Kofi
Ama Diego Ines Mateo Paula Stefan Petra Otto Heidi Karl Liam Grace Noah Ruby Ethan Violet Owen Hazel Jack Lily""".split()
CITIES = """Paris London Berlin Madrid Rome Vienna Oslo Lisbon Dublin Prague Boston Chicago Hamburg Milan Porto Geneva Seville
Lyon Turin Krakow Leeds Bergen Toronto Sydney Osaka Mumbai Cairo Lima Quito Havana Seoul Hanoi Nairobi Accra Tunis Athens Sofia
Riga Malmo Gdansk Naples Valencia Bristol Cardiff Munich Dresden Zurich Basel Salzburg Ghent Utrecht Denver Austin""".split()
COLOURS = "red blue green yellow black white orange purple pink brown grey".split()
ITEMS = """apple book lamp chair table bicycle hat coat pen bottle clock mirror guitar camera phone watch bag ball cup plate knife
umbrella ladder hammer rope map candle pillow blanket basket brush kettle radio printer keyboard screen desk sofa carpet vase""".split()
COUNTABLES = "apples books pens eggs coins cards cakes balls flowers oranges stamps cookies stones tickets pencils shells".split()
