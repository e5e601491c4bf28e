# Prints what `go test -v` prints, and counts its tests as a whole, without their subtests. It fails where no test has passed, where
# one fails, and where one passes of which each subtest is skipped: that one has tested nothing.
{ print }
match($0, /^ *--- (PASS|SKIP|FAIL): /) {
  result = $2
  name = $3
  sub(/:$/, "", result)
  if (split(name, parts, "/") > 1) {
    subtests[parts[1]] = 1
    if (result != "SKIP") ran[parts[1]] = 1
  } else {
    results[name] = result
  }
}
END {
  for (name in results) {
    if (results[name] == "PASS" && subtests[name] && !ran[name]) {
      hollow++
      print service ": " name " passes, and each of its subtests is skipped"
    }
    count[results[name]]++
  }
  printf "%s: %d tests passed, %d skipped, %d failed\n", service, count["PASS"], count["SKIP"], count["FAIL"]
  if (!count["PASS"] || count["FAIL"] || hollow) exit 1
}
