# Prints the output of `go test -v`, and counts its tests, without subtests. Exits with 1 if no test passes, if a test fails, or if a test
# passes of which every subtest is skipped.
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
      print service ": " name " passes although every subtest is skipped"
    }
    count[results[name]]++
  }
  printf "%s: %d tests passed, %d skipped, %d failed\n", service, count["PASS"], count["SKIP"], count["FAIL"]
  if (!count["PASS"] || count["FAIL"] || hollow) exit 1
}
