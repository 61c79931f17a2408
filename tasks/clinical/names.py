"""Invented people and places: given names, and surnames and towns put together from syllables."""

from __future__ import annotations


def _words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


FEMALE = _words(
    "Ada Agnes Alba Alma Amara Anouk Astrid Aya Beatrix Bianca Brigid Carmen Cecily Chiara Clara Dahlia Daphne "
    "Edith Eilidh Elif Elsa Esther Farah Fatima Freya Gemma Gloria Greta Hana Hedda Helga Imani Ines Ingrid Irma "
    "Isla Ivana Jamila Joan Judith Kaia Keziah Lena Lidia Linnea Lucia Mabel Magda Maren Mei Mina Nadia Nell "
    "Noor Odile Olga Petra Priya Ramona Rosa Ruth Sadie Selma Signe Sunita Tamar Thea Ursula Valeria Vera Wanda "
    "Yasmin Ylva Zelda Zora"
)
MALE = _words(
    "Abel Ahmed Alvar Amos Anton Arjun Axel Basil Boris Bruno Casper Cedric Cyrus Dario Dmitri Edgar Eino Emil "
    "Enzo Ezra Fabian Felix Fergus Gideon Gustav Hamid Harald Hector Hugo Ibrahim Igor Ivo Jasper Jonas Karim "
    "Kenji Lars Leopold Lorenzo Magnus Marek Milan Mustafa Nestor Nikolai Oleg Omar Orson Oscar Otto Pascal "
    "Pavel Quentin Rafael Ravi Roman Rufus Samir Sergio Silas Simon Stellan Tariq Theo Tobias Ulrich Umar Viktor "
    "Walter Wilfred Xavier Yusuf Zoltan"
)
SURNAME_START = _words(
    "Al Bar Bel Ber Bor Bran Cal Car Chal Cor Dal Den Dor Drum Ek El Fal Fen Fin Gal Gor Gren Hal Har Hel Hol "
    "Jar Kar Kel Kol Lan Lin Lor Mal Mar Mer Mol Nor Or Pal Per Quin Ran Rol Sal Sel Sten Tal Tor Ul Val Var Ver "
    "Wal Wil Yar Zan"
)
SURNAME_MIDDLE = _words("a ade ami be da de el en er i ima in ka la le li ma mi na ne o ra re ri ta ti va vi")
SURNAME_END = _words(
    "berg bury by dahl ez field ford gate ham ic kin land ley lund man mond more nell ni quist rell rov san sen "
    "shaw ski son stad ton tti vic ward well wick wood"
)
TOWN_START = _words("Ash Birk Crag Dun Elm Fern Glen Hawk Iron Kirk Lang Mill North Oak Peat Red Stone Thorn West")
TOWN_END = _words("bridge brook cliff dale fell ford gate haven hill mere moor mouth port stead wold worth")
JOBS = _words(
    "baker|bus driver|carpenter|cleaner|clerk|cook|electrician|farmer|fisher|florist|gardener|glazier|joiner|"
    "librarian|mason|mechanic|miner|nurse|painter|pilot|plumber|porter|postal worker|printer|roofer|sailor|"
    "shopkeeper|surveyor|tailor|teacher|translator|waiter|warehouse worker|watchmaker|weaver|welder",
    "|",
)
KIN = _words("a brother|a cousin|a daughter|a friend|a lodger|a nephew|a niece|a sister|a son|two children", "|")
MONTHS = _words("January February March April May June July August September October November December")
