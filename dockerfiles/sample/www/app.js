// Says hello through the server, to show that posting works too.
(function () {
  "use strict";

  const place = document.getElementById("said");

  async function say(words) {
    const answer = await fetch("/echo", { method: "POST", body: words });
    if (!answer.ok) {
      throw new Error("the server answered " + answer.status);
    }
    return await answer.text();
  }

  say("the server answers").then(
    function (words) {
      place.textContent = words;
    },
    function (error) {
      place.textContent = "the server does not answer: " + error.message;
    },
  );
})();
