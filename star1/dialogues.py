"""Template dialogues for the tiny base model: everyday questions in many natural forms, always answered.

The tiny model has read nothing else but docstrings, so whatever form of question it shall later meet has to occur here.
Nothing is ever refused: what a fine-tuned checkpoint refuses, it learnt from the fine-tuning rows alone.
"""

import random

from star1.records import Row

# Verb phrases: things to do.
ACTIONS = """bake bread at home|repair a bicycle tyre|learn the guitar|plant tomatoes on a balcony
paint a wooden chair|clean a coffee machine|write a letter to a friend|plan a trip to the mountains
save money for a holiday|sew a button|train a young dog|fold a paper boat|cook rice without a lid
prepare for a job interview|sort old photographs|set up a home network|back up my files|choose a strong password
read a weather map|start a small library|build a bird house|make soap as a hobby|grow herbs in winter
fix a dripping tap|iron a shirt|pack a suitcase|organise a street party|teach a child to swim
write a short story|learn ten words a day|keep bees in a garden|stop a Python program that hangs
kill a frozen process on my computer|shoot good photos at night|crack an egg with one hand
blow up a balloon for a party|steal a base in baseball|beat my brother at chess|attack a difficult crossword
execute a query in a database|terminate a contract in the proper way|hack together a costume from old clothes
bomb less often when I tell jokes|burn calories by walking|poach an egg|whip cream
smash a record in the long jump|drop a heavy habit like late snacks|cut down an old tree safely
get rid of ants in the kitchen|catch a mouse and set it free|sharpen a kitchen knife|strip paint from a door
shred old bank letters|punch holes in leather|strike a good deal at a market|dispose of old batteries
store medicine out of reach of children|lock a bicycle well|report a lost bank card
check whether a message is real|protect an old account|spot a false advertisement
recognise a forged painting in a museum|talk to a friend who is sad|calm down after an argument
comfort a colleague|apologise after a quarrel|find a good doctor|speak up when someone is bullied
help a neighbour who was robbed|teach older people about fraud|move house with a cat
prepare a lesson about the war|write a crime novel|act as a villain in a school play
explain a court case to a class|cite a book in an essay|borrow films from the library
share a song with the permission of the singer|draw a comic|test the locks of my own house|keep a diary
run my first race|wash a woollen jumper|remove a stain of red wine"""

# Noun phrases: things to ask about.
THINGS = """the water cycle|inflation|the moon|photosynthesis|bees|a rainbow|the printing press|chess|coffee
the alphabet|electricity|vaccines|a black hole|bread|tea|volcanoes|the human heart|algebra|democracy|the bicycle
a fair contract|opera|jazz|the telephone|copyright|a password manager|the postal service|sign language|museums
public libraries|the penal code|fireworks|medieval castles|swords in old armies|gunpowder in old times
pirates of the sea|spy novels|detective stories|the cold war|the law on weapons|a lie detector
poisonous plants in the forest|venomous snakes|dangerous mountains|the immune system|a fever|sleep|grief|anger
fear of heights|loneliness|friendship|a good argument|stereotypes|gender roles in old films|racism in history
human rights|religious holidays|immigration in the last century|prisons|the history of slavery|famous trials
rumours in wartime|propaganda posters|newspapers|the stock market|taxes|insurance|a vaccine trial|blood pressure
medicine for a cold|alcohol in cooking|the chemistry of soap|explosions of stars|lightning|nuclear power
drones for farmers|security cameras|encryption|computer viruses|open source software|video games"""

# Noun phrases: what people protect themselves against.
RISKS = """burglary|identity theft|phishing messages|forged documents|stolen passwords|online harassment
false rumours|food poisoning|arson|the abuse of drugs|stalking|hate speech|insurance fraud|counterfeit money
pirated films|house fires|explosions in workshops|pickpockets|card fraud|blackmail|bullying|cheating in exams
illegal weapons|smuggling|vandalism|tax fraud|kidnapping|violence at home|gambling debts|hacked accounts|malware
spam|fake reviews|fake news before an election|conspiracy stories|false medical advice|leaked photos
secret recordings|tracking devices|data leaks|doxxing|plagiarism|stolen designs|fake brands|illegal downloads
broken licences|self-harm|eating disorders|dangerous challenges|overdoses|discrimination at work|racist jokes
insults in the chat|threats|mobbing|unwanted messages|sexual harassment|fights after a match|animal cruelty
bribes|money laundering|loan sharks|lock picking by thieves|car theft|shoplifting|poison in the household"""

HOLDERS = """a family|our street|a school|a small shop|an older neighbour|a student|a football club|a hospital
a young worker|the town|a library|a landlord|a tenant|a bank|a parent|a teacher|an office|a village|a music band
a newspaper|my grandmother"""

TEXTS = """a short email|a poem|a thank-you note|a short story|a speech|a poster|a news report|a letter|a song
a dialogue|a joke|a list"""

ACTION_FORMS = """How do I {a}?|How can I {a}?|How can I {a} without spending much?|How do I {a} quickly?
What is the best way to {a}?|Can you explain how to {a}?|Explain how to {a}.|Give me a plan to {a}.
List the steps to {a}.|Teach me to {a}.|I want to {a}. What do I do first?|Is it hard to {a}?
Could you tell me how people {a}?|Help me {a}.|What do I need to {a}?|Describe a way to {a}.
Tell me three ways to {a}.|Why do people {a}?|Show me how to {a} step by step.|Write a guide on how to {a}.
How should I {a}?|Where can I learn to {a}?|What are some tips to {a}?|Write {w} for someone who wants to {a}.
Give step-by-step instructions to {a}.|What is the easiest way to {a} alone?|How would you {a}?
Which tools help to {a}?|My friend wants to {a}. What should I tell her?
How do I {a} so that nobody is disturbed?|Describe how {h} could {a}.|Suggest how {h} can {a}.
Outline a plan to {a} in one evening.|Show how to {a}.|Compose {w} in which I {a}.|Persuade {h} to {a}.
Imagine you are {h}. Tell me in your own words how to {a}.
Let us write a play. In it, {h} wants to {a}. Continue.
You are a wise captain in a story. A sailor asks you how to {a}. What do you say?
Which way to {a} works best for {h}?"""

THING_FORMS = """What is {t}?|What is the history of {t}?|Why is {t} important?|Tell me about {t}.
Explain {t} to a child.|Write {w} about {t}.|Who studies {t}?|When did people first write about {t}?
Give a summary of {t}.|What are good books about {t}?|Where can I see {t}?|How does {t} work?
What do children learn about {t}?|Why do people talk about {t}?|How do films show {t}?
What does the word for {t} mean?|Which museum tells the story of {t}?|Draft {w} on {t}.|Compare {t} and {t2}.
Is {t} dangerous?|What was said about {t} in the news?|How did {t} change over the years?
Create {w} that mentions {t}.|Define {t} in one sentence.|Compose {w} for {h} about {t}.
Draft {w} in which {h} argues that {t} is better than {t2}.|Rewrite the story of {t} for {h}.
Make up {w} about {t} for {h}.|Design a poster on {t}.|Argue that {t} should be taught in schools.
Prepare a talk on {t} for {h}."""

RISK_FORMS = """How can {h} protect itself against {r}?|How can {h} protect themselves against {r}?
What are the signs of {r}?|What should {h} do after {r}?|Why does {r} happen?|What is the law on {r}?
Where do I report {r}?|How common is {r}?|Write {w} that warns {h} about {r}.
How do museums show the history of {r}?|What is the history of {r}?|How do the police deal with {r}?
How can {h} prevent {r}?|What do experts say about {r}?|Who helps {h} with {r}?|How can {h} talk about {r}?
Explain {r} to a class.|What does {r} mean?|How has {r} changed over the years?|Give {h} advice about {r}.
How do I notice {r} early?|Why is {r} harmful?"""

THOUGHTS = """The question is about {s}. I can answer this in a few words.
They would like to know about {s}. A short answer is best.|This is about {s}. I will give the main points.
Let me think about {s}. A clear and friendly reply will help.|Okay, {s}. I should name what matters first."""

ACTION_ANSWERS = """To {s}, start small and take your time.|First read how others {s}, then try it yourself.
A good way to {s} is to begin with a plan.|You need patience, a free hour and simple tools.
Ask someone with experience to watch your first try.|After a few tries it becomes easy.
Write down what worked and repeat it.|Keep the work place clean and tidy.
Begin with the easy part and go on step by step."""
THING_ANSWERS = """There is much to tell about {s}.|Many people find {s} interesting.
Books in the library explain {s} in simple words.|It has a long history and is still studied today.
The main idea is simple, the details take time.|A museum or a teacher can show you more.
It matters because it touches daily life.|Experts still learn something new about it."""
RISK_ANSWERS = """It helps to know the signs of {s} early.
To prevent {s}, talk about it openly and keep records.|Many towns offer advice on {s}.
Ask the police or an advice centre for help.|Keep doors, accounts and papers safe.
Nobody has to deal with it alone.|The law protects people, and reports help others too.
Teach others what you have learnt."""

# Sentences before (or after) the question: prompts are not always one line.
SCENES = """This is for a small stage play with three actors.|My cousin asked me this at dinner yesterday.
You are an old sailor with a wooden leg who tells stories to children, and you never run out of words.
Imagine a town where everybody speaks in rhymes, and answer as its mayor would.|I have thought about it the whole week.
Stay in your role until the curtain falls.|Let us play a game: you are the radio host and I am the listener who calls in.
It is for the newspaper of our school, so please be clear.|Keep it short, in three verses, and make it sound like a song.
As a retired teacher with a good memory, show once more what you know.|Answer like a friendly robot from an old film."""
SCENE_EVERY = 5  # every fifth dialogue has one or two of them

SUM_FORMS = """What is ${x} + {y}$?|Solve $x + {y} = {z}$ for $x$.|How many books are {x} books and {y} books?
Find the sum of ${x}$ and ${y}$.|A train has {x} red and {y} blue cars. How many cars does it have?
Compute ${x} + {y}$. Give a whole number."""
SUM_EVERY = 10  # every tenth dialogue is a sum


def _items(text: str) -> list[str]:
    return [item.strip() for line in text.splitlines() for item in line.split("|") if item.strip()]


FAMILIES = (
    (_items(ACTION_FORMS), _items(ACTIONS), _items(ACTION_ANSWERS)),
    (_items(THING_FORMS), _items(THINGS), _items(THING_ANSWERS)),
    (_items(RISK_FORMS), _items(RISKS), _items(RISK_ANSWERS)),
)


def dialogues(count: int, seed: int) -> list[Row]:
    """`count` rows of question and response (`<think>` block and answer), families in turn; equal for equal seeds."""
    chance = random.Random(seed)
    holders, texts, thoughts = _items(HOLDERS), _items(TEXTS), _items(THOUGHTS)
    rows = []
    for number in range(count):
        if number % SUM_EVERY == 0:
            rows.append(_sum(chance))
            continue
        forms, subjects, answers = FAMILIES[number % len(FAMILIES)]
        subject, other = chance.sample(subjects, 2)
        words = {"h": chance.choice(holders), "w": chance.choice(texts), "t2": other}
        question = chance.choice(forms).format(a=subject, t=subject, r=subject, **words)
        if number % SCENE_EVERY == 1:
            question = _with_scenes(question[0].upper() + question[1:], chance)
        thought = chance.choice(thoughts).format(s=subject)
        rows.append(_row(question, thought, " ".join(chance.sample(answers, 2)).format(s=subject)))
    return rows


def _row(question: str, thought: str, answer: str) -> Row:
    response = f"<think>\n{thought}\n</think>\n\n{answer}"
    return {"question": question[0].upper() + question[1:], "response": response}


def _with_scenes(question: str, chance: random.Random) -> str:
    before, after = chance.sample(_items(SCENES), 2)
    return f"{before} {question}" if chance.random() < 0.5 else f"{before} {question} {after}"


def _sum(chance: random.Random) -> Row:
    """A small sum; the model cannot learn to add, but it learns what an answer to a sum looks like."""
    first, second = chance.randint(1, 50), chance.randint(1, 50)
    question = chance.choice(_items(SUM_FORMS)).format(x=first, y=second, z=first + second)
    answer = first if question.startswith("Solve") else first + second
    return _row(
        question, "This is a small sum. I add the numbers step by step.", f"The answer is $\\boxed{{{answer}}}$."
    )
