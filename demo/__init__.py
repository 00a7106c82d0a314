"""The web page: widgets and wiring over `maskgit_core`. No mathematics lives here."""
